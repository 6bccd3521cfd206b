# Two commands for newcomers: `make serve` and `make test`.
PYTHON ?= python3
HOST   ?= 127.0.0.1
PORT   ?= 8000
ARGS   ?=
# cpu or cuda: each has an environment and engines of its own.
DEVICE ?= cpu
# A CPU build is enough; another requirement or an index can be named here.
TORCH  ?= torch==2.13.0

# Processes that run tests side by side.
WORKERS ?= 2

TEST_VENV  := .venv-test
BENCH_VENV := .venv-bench
GPU_VENV   := .venv-gpu

ifeq ($(DEVICE),cpu)
SERVE_VENV := .venv
EXTRAS     := cpu,export
DEMOS      := demo-chat demo-diffusion
BUILT      := engines/built
TARGET     := ort-cpu
else ifeq ($(DEVICE),cuda)
SERVE_VENV := .venv-cuda
EXTRAS     := gpu,export
DEMOS      := demo-chat
BUILT      := engines/built-cuda
TARGET     := cuda
else
$(error DEVICE is '$(DEVICE)', but it must be cpu or cuda)
endif
ENGINES    := $(DEMOS:%=$(BUILT)/%/engine.json)
# What it was evaluated with.
OPTIONS_demo-diffusion := --num-inference-steps 20 --guidance-scale 3 \
	--calibration-prompts demos/diffusion_training/calibration_prompts.txt

# Of `make bench`: who takes part, and any option of `python -m benchmarks peers`.
PEERS  ?= enginery openvino genai llamacpp transformers optimum
BENCH  ?= --rounds 3

.PHONY: serve demo test test-clients bench test-gpu bench-gpu try-gpu check format clean

serve: $(ENGINES)
	@exec $(SERVE_VENV)/bin/python -m server --engine-dir $(BUILT) --device $(DEVICE) --host $(HOST) \
		--port $(PORT) $(ARGS)

demo: $(ENGINES)

.SECONDEXPANSION:
$(ENGINES): $(BUILT)/%/engine.json: $$(shell find demos/$$* -type f) | $(SERVE_VENV)/installed
	@$(SERVE_VENV)/bin/python -m export --checkpoint-path demos/$* --name $* --force --target $(TARGET) \
		--output $(BUILT) $(OPTIONS_$*)

$(SERVE_VENV)/installed: pyproject.toml
	@PYTHON='$(PYTHON)' scripts/make-venv $(SERVE_VENV) '$(EXTRAS)'

$(TEST_VENV)/installed: pyproject.toml
	@PYTHON='$(PYTHON)' TORCH='$(TORCH)' scripts/make-venv $(TEST_VENV) 'test'

test: $(TEST_VENV)/installed
	$(TEST_VENV)/bin/python -m pytest --numprocesses $(WORKERS) --dist loadfile $(ARGS)

# Frameworks that speak the OpenAI API, in environments of their own.
test-clients: $(TEST_VENV)/installed
	$(TEST_VENV)/bin/python -m pytest -m clients tests/clients $(ARGS)

$(BENCH_VENV)/installed: pyproject.toml
	@PYTHON='$(PYTHON)' scripts/make-venv $(BENCH_VENV) 'cpu,export,bench'

# Peers are set up below build/peers; run again, it goes on where it was cut short.
bench: $(BENCH_VENV)/installed
	$(BENCH_VENV)/bin/python -m benchmarks peers-setup --peers $(PEERS) --torch '$(TORCH)'
	$(BENCH_VENV)/bin/python -m benchmarks peers --peers $(PEERS) --journal build/peers/journal.jsonl \
		--json build/peers/peers.json --update docs/performance.md --plots docs/images $(BENCH)

# TensorRT's libraries come from NVIDIA; without them what needs them is skipped, and named.
$(GPU_VENV)/installed: pyproject.toml
	@PYTHON='$(PYTHON)' scripts/make-venv $(GPU_VENV) 'test-gpu'
	@$(GPU_VENV)/bin/python -m pip --quiet install 'tensorrt>=11' >$(GPU_VENV)/tensorrt.log 2>&1 || \
		echo "TensorRT could not be installed ($(GPU_VENV)/tensorrt.log): what needs it is skipped" >&2

test-gpu: $(GPU_VENV)/installed
	$(GPU_VENV)/bin/python -m pytest tests/device $(ARGS)

bench-gpu: $(GPU_VENV)/installed
	$(GPU_VENV)/bin/python -m benchmarks gpu --into docs/performance.md $(ARGS)

# For a GPU that is lent for a quarter of an hour: the tests, then what the time allows.
try-gpu: $(GPU_VENV)/installed
	-$(GPU_VENV)/bin/python -m pytest tests/device
	$(GPU_VENV)/bin/python -m benchmarks gpu --into docs/performance.md --max-minutes 9 \
		--parts parity --parts images --parts chat $(ARGS)

check: $(TEST_VENV)/installed
	$(TEST_VENV)/bin/ruff format --check .
	$(TEST_VENV)/bin/ruff check .
	$(TEST_VENV)/bin/mypy

format: $(TEST_VENV)/installed
	$(TEST_VENV)/bin/ruff format .
	$(TEST_VENV)/bin/ruff check --fix .

clean:
	rm -rf .venv .venv-cuda $(TEST_VENV) $(BENCH_VENV) $(GPU_VENV) build *.egg-info engines/built engines/built-cuda
