import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.errors import PeerFailed
from benchmarks.peers.catalogue import Enginery, Genai, LlamaCpp
from benchmarks.peers.process import build_model, measure, model_folder, run_command
from benchmarks.peers.workload import Workload, read_measurement
from tests.benchmarks.fake_peers import GENAI_MODULE, ScriptedPeer, make_llamacpp

WORKLOAD = Workload(
    prefill_tokens=40, decode_context=8, decode_tokens=4, streams=(1, 2), num_threads=3
)
PYTHON = Path(sys.executable)


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "tiny-checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def test_the_answer_is_found_among_other_output():
    line = 'RESULT {"prefill": 1.5, "decode": {"8": 2.5}, "peak_rss_bytes": 9, "version": "v"}'
    measured = read_measurement(f"loading\n{line}\nbye\n")
    assert measured is not None
    assert measured.decode == {8: 2.5}
    assert read_measurement("loading\n") is None
    assert read_measurement("RESULT {}\n") is None


@pytest.mark.parametrize("fields", [{"streams": ()}, {"streams": (1, 0)}, {"decode_tokens": 0}])
def test_a_workload_without_work_is_refused(fields):
    with pytest.raises(ValueError, match="is 0, but it must be at least 1"):
        Workload(**fields)


def test_a_model_is_made_once_and_used_again(checkpoint, tmp_path):
    peer = ScriptedPeer()
    first = build_model(peer, tmp_path / "work", checkpoint, "int8")
    (first / "mark").touch()
    assert build_model(peer, tmp_path / "work", checkpoint, "int8") == first
    assert (first / "mark").exists()


def test_our_own_engine_is_made_anew_each_time(checkpoint, tmp_path):
    peer = ScriptedPeer(reuses_models=False)
    first = build_model(peer, tmp_path / "work", checkpoint, "int8")
    (first / "mark").touch()
    build_model(peer, tmp_path / "work", checkpoint, "int8")
    assert [path.name for path in first.iterdir()] == ["model"]


def test_a_build_that_fails_is_never_taken_for_a_model(checkpoint, tmp_path):
    peer = ScriptedPeer(build_source="raise SystemExit('no space for the model')")
    for _ in range(2):
        with pytest.raises(PeerFailed, match="ended with status 1: no space for the model"):
            build_model(peer, tmp_path / "work", checkpoint, "int4")
    assert not model_folder(peer, tmp_path / "work", checkpoint, "int4").exists()


def test_an_adapter_without_an_answer_has_failed(tmp_path):
    with pytest.raises(PeerFailed, match="printed no measurement: nothing"):
        measure(ScriptedPeer(), tmp_path, WORKLOAD)


def test_a_command_that_does_not_exist_has_failed():
    with pytest.raises(PeerFailed, match="cannot be started"):
        run_command(["/no/such/program"])


def test_settings_of_the_benchmark_do_not_reach_its_children(monkeypatch):
    monkeypatch.setenv("ENGINERY_JSON", "report.json")
    source = "import os; print([name for name in os.environ if name.startswith('ENGINERY_')])"
    assert run_command([sys.executable, "-c", source]) == "[]\n"


def test_peers_that_are_not_there_are_left_out_with_a_sentence(tmp_path):
    nowhere = tmp_path / "nowhere"
    assert Enginery().missing() is None
    assert "name a Python that has it with --genai-python" in str(Genai(None).missing())
    assert f"{nowhere} does not exist" in str(Genai(nowhere).missing())
    assert "name its folder with --llamacpp-dir" in str(LlamaCpp(None, PYTHON).missing())
    missing = str(LlamaCpp(nowhere, PYTHON).missing())
    assert missing == f"llama.cpp is left out: {nowhere / 'convert_hf_to_gguf.py'} does not exist"
    assert LlamaCpp(make_llamacpp(nowhere), PYTHON).missing() is None


def test_a_python_without_genai_is_left_out(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    assert f"{python} cannot import it" in str(Genai(python).missing())


@pytest.mark.parametrize(("precision", "prefill"), [("int8", 201.0), ("int4", 101.0)])
def test_llamacpp_is_converted_and_measured_by_its_own_tools(
    checkpoint, tmp_path, precision, prefill
):
    peer = LlamaCpp(make_llamacpp(tmp_path / "llama"), PYTHON)
    model = build_model(peer, tmp_path / "work", checkpoint, precision)
    assert [path.name for path in model.iterdir()] == ["model.gguf"]  # no bf16 is left
    measured = measure(peer, model, WORKLOAD)
    assert measured.prefill == prefill  # the best of two samples
    assert measured.decode == {1: 12.0, 2: 23.0}  # the best of two rows each
    assert measured.version == "llama.cpp abc123"
    assert measured.peak_rss_bytes > 0


def test_a_llamacpp_tool_that_fails_is_named(checkpoint, tmp_path):
    folder = make_llamacpp(tmp_path / "llama")
    (folder / "build" / "bin" / "llama-bench").write_text("#!/bin/sh\nexit 3\n")
    peer = LlamaCpp(folder, PYTHON)
    model = build_model(peer, tmp_path / "work", checkpoint, "int8")
    with pytest.raises(PeerFailed, match="llama-bench ended with status 3"):
        measure(peer, model, WORKLOAD)


def test_genai_is_measured_in_static_batches(tmp_path):
    (tmp_path / "onnxruntime_genai.py").write_text(GENAI_MODULE)
    (tmp_path / "genai_config.json").write_text("{}")
    done = subprocess.run(
        Genai(PYTHON).run(tmp_path, WORKLOAD),
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    measured = read_measurement(done.stdout)
    assert measured is not None, done.stderr
    assert set(measured.decode) == {1, 2}
    assert min(measured.prefill, *measured.decode.values()) > 0
    assert measured.load_s is not None
    assert measured.version.startswith("onnxruntime-genai 9.9 on onnxruntime ")


def test_our_engine_is_measured_in_a_process_of_its_own(tiny_engine_dir):
    measured = measure(Enginery(), tiny_engine_dir, WORKLOAD)
    assert set(measured.decode) == {1, 2}
    assert min(measured.prefill, *measured.decode.values()) > 0
    assert measured.version.startswith("Enginery ")
    assert measured.peak_rss_bytes > 0
