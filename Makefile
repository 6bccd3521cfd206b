# Two commands for newcomers: `make serve` and `make test`.
PYTHON ?= python3
HOST   ?= 127.0.0.1
PORT   ?= 8000
ARGS   ?=
# A CPU build is enough; another requirement or an index can be named here.
TORCH  ?= torch==2.13.0

SERVE_VENV := .venv
TEST_VENV  := .venv-test
DEMOS      := demo-chat demo-diffusion
ENGINES    := $(DEMOS:%=engines/built/%/engine.json)
# What it was evaluated with.
OPTIONS_demo-diffusion := --num-inference-steps 20 --guidance-scale 3 \
	--calibration-prompts demos/diffusion_training/calibration_prompts.txt

.PHONY: serve demo test check format clean

serve: $(ENGINES)
	@exec $(SERVE_VENV)/bin/python -m server --engine-dir engines --host $(HOST) --port $(PORT) $(ARGS)

demo: $(ENGINES)

.SECONDEXPANSION:
$(ENGINES): engines/built/%/engine.json: $$(shell find demos/$$* -type f) | $(SERVE_VENV)/installed
	@$(SERVE_VENV)/bin/python -m export --checkpoint-path demos/$* --name $* --force $(OPTIONS_$*)

$(SERVE_VENV)/installed: pyproject.toml
	@PYTHON='$(PYTHON)' scripts/make-venv $(SERVE_VENV) 'cpu,export'

$(TEST_VENV)/installed: pyproject.toml
	@PYTHON='$(PYTHON)' TORCH='$(TORCH)' scripts/make-venv $(TEST_VENV) 'test'

test: $(TEST_VENV)/installed
	$(TEST_VENV)/bin/python -m pytest $(ARGS)

check: $(TEST_VENV)/installed
	$(TEST_VENV)/bin/ruff format --check .
	$(TEST_VENV)/bin/ruff check .
	$(TEST_VENV)/bin/mypy

format: $(TEST_VENV)/installed
	$(TEST_VENV)/bin/ruff format .
	$(TEST_VENV)/bin/ruff check --fix .

clean:
	rm -rf $(SERVE_VENV) $(TEST_VENV) build *.egg-info engines/built
