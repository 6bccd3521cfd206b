import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from benchmarks.errors import PeerFailed
from benchmarks.peers.adapters.adapter import BatchingModel, ClosedLoop
from benchmarks.peers.catalogue import Enginery, all_peers
from benchmarks.peers.environments import PythonEnvironment, make_ready, unpack
from benchmarks.peers.http import free_port, measure_server
from benchmarks.peers.process import build_model, measure, model_folder, run_command
from benchmarks.peers.workload import (
    ClientsMeasurement,
    EngineMeasurement,
    Workload,
    read_answer,
)
from tests.benchmarks.fake_peers import (
    GENAI_MODULE,
    ScriptedPeer,
    make_environment,
    make_llamacpp,
)

WORKLOAD = Workload(
    prefill_tokens=40,
    decode_context=8,
    decode_tokens=4,
    streams=(1, 2),
    clients=2,
    client_requests=5,
    client_prompt=20,
    client_tokens=3,
    num_threads=3,
)


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "tiny-checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def test_the_answer_is_found_among_other_output():
    line = 'RESULT {"prefill": 1.5, "decode": {"8": 2.5}, "peak_rss_bytes": 9, "version": "v"}'
    measured = read_answer(f"loading\n{line}\nbye\n", EngineMeasurement)
    assert measured is not None
    assert measured.decode == {8: 2.5}
    assert read_answer("loading\n", EngineMeasurement) is None
    assert read_answer("RESULT {}\n", EngineMeasurement) is None


@pytest.mark.parametrize("fields", [{"streams": ()}, {"streams": (1, 0)}, {"clients": 0}])
def test_a_workload_without_work_is_refused(fields):
    with pytest.raises(ValueError, match="is 0, but it must be at least 1"):
        Workload(**fields)


def test_a_model_is_made_once_and_used_again_unless_forced(checkpoint, tmp_path):
    peer = ScriptedPeer()
    first = build_model(peer, tmp_path / "work", checkpoint, "int8")
    (first / "mark").touch()
    assert build_model(peer, tmp_path / "work", checkpoint, "int8") == first
    assert (first / "mark").exists()
    build_model(peer, tmp_path / "work", checkpoint, "int8", force=True)
    assert [path.name for path in first.iterdir()] == ["model"]


def test_a_build_that_fails_is_never_taken_for_a_model(checkpoint, tmp_path):
    peer = ScriptedPeer(build_source="raise SystemExit('no space for the model')")
    for _ in range(2):
        with pytest.raises(PeerFailed, match="ended with status 1: no space for the model"):
            build_model(peer, tmp_path / "work", checkpoint, "int4")
    assert not model_folder(peer, tmp_path / "work", checkpoint, "int4").exists()


def test_an_adapter_without_an_answer_has_failed():
    with pytest.raises(PeerFailed, match="printed no measurement: nothing"):
        measure([sys.executable, "-c", "print('nothing')"], EngineMeasurement)


def test_a_command_that_does_not_exist_has_failed():
    with pytest.raises(PeerFailed, match="cannot be started"):
        run_command(["/no/such/program"])


def test_settings_of_the_benchmark_do_not_reach_its_children(monkeypatch):
    monkeypatch.setenv("ENGINERY_JSON", "report.json")
    source = "import os; print([name for name in os.environ if name.startswith('ENGINERY_')])"
    assert run_command([sys.executable, "-c", source]) == "[]\n"


def test_peers_that_are_not_set_up_say_what_is_missing(tmp_path):
    for name, peer in all_peers(tmp_path, "torch").items():
        if name == "enginery":
            assert peer.setup is None
            continue
        missing = str(peer.setup.missing())
        assert missing.startswith(str(tmp_path))
        assert missing.endswith(("is not set up", "does not exist"))
    assert make_llamacpp(tmp_path).setup.is_ready


def test_an_environment_is_ready_once_all_was_installed(tmp_path):
    environment = PythonEnvironment(tmp_path / "own", ())
    venv, _, mark = environment.commands()
    assert not environment.is_ready
    run_command([*venv, "--without-pip"])
    run_command(mark)
    assert environment.is_ready
    assert run_command([str(environment.python), "-c", "print(1)"]) == "1\n"


def test_a_set_up_that_fails_says_which_command(tmp_path):
    class Broken:
        is_ready = False

        def commands(self):
            return [[sys.executable, "-c", "raise SystemExit(3)"]]

    with pytest.raises(PeerFailed, match=r"SystemExit\(3\)` ended with status 3"):
        make_ready(Broken(), dict(os.environ))


def test_sources_are_unpacked_without_their_outermost_folder(tmp_path):
    inside = tmp_path / "package-1.0" / "vendor"
    inside.mkdir(parents=True)
    (inside / "file").write_text("text")
    sdist = tmp_path / "sdist"
    sdist.mkdir()
    with tarfile.open(sdist / "package-1.0.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "package-1.0", "package-1.0")
    unpack(sdist, tmp_path / "out")
    assert (tmp_path / "out" / "vendor" / "file").read_text() == "text"


@pytest.mark.parametrize(("precision", "prefill"), [("int8", 201.0), ("int4", 101.0)])
def test_llamacpp_is_converted_and_measured_by_its_own_tools(
    checkpoint, tmp_path, precision, prefill
):
    peer = make_llamacpp(tmp_path / "work")
    model = build_model(peer, tmp_path / "work", checkpoint, precision)
    assert [path.name for path in model.iterdir()] == ["model.gguf"]  # no bf16 is left
    measured = measure(peer.run(model, checkpoint, "engine", WORKLOAD), EngineMeasurement)
    assert measured.prefill == prefill  # the best of two samples
    assert measured.decode == {1: 12.0, 2: 23.0}  # the best of two rows each
    assert measured.version == "llama.cpp abc123"
    assert measured.peak_rss_bytes > 0
    assert peer.run(model, checkpoint, "clients", WORKLOAD) is None


def test_a_llamacpp_tool_that_fails_is_named(checkpoint, tmp_path):
    peer = make_llamacpp(tmp_path / "work")
    tool = peer.setup.source / "build" / "bin" / "llama-bench"
    tool.write_text("#!/bin/sh\nexit 3\n")
    model = build_model(peer, tmp_path / "work", checkpoint, "int8")
    with pytest.raises(PeerFailed, match="llama-bench ended with status 3"):
        measure(peer.run(model, checkpoint, "engine", WORKLOAD), EngineMeasurement)


def test_genai_is_measured_in_static_batches(tmp_path):
    make_environment(tmp_path / "genai")
    (tmp_path / "onnxruntime_genai.py").write_text(GENAI_MODULE)
    (tmp_path / "genai_config.json").write_text("{}")
    genai = all_peers(tmp_path, "torch")["genai"]
    root = os.fspath(tmp_path) + os.pathsep + os.fspath(Path.cwd())
    done = subprocess.run(
        genai.run(tmp_path, tmp_path, "engine", WORKLOAD),
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": root},
    )
    measured = read_answer(done.stdout, EngineMeasurement)
    assert measured is not None, done.stderr
    assert set(measured.decode) == {1, 2}
    assert min(measured.prefill, *measured.decode.values()) > 0
    assert 0 < measured.load_s < measured.startup_s
    assert measured.version.startswith("onnxruntime-genai 9.9 on onnxruntime ")
    assert genai.run(tmp_path, tmp_path, "clients", WORKLOAD) is None


def test_our_engine_is_measured_in_a_process_of_its_own(tiny_engine_dir, tmp_path):
    command = Enginery().run(tiny_engine_dir, tmp_path, "engine", WORKLOAD)
    measured = measure(command, EngineMeasurement)
    assert set(measured.decode) == {1, 2}
    assert min(measured.prefill, *measured.decode.values()) > 0
    assert measured.version.startswith("Enginery ")
    assert measured.peak_rss_bytes > 0


def test_our_engine_answers_clients_in_its_process(tiny_engine_dir, tmp_path):
    command = Enginery().run(tiny_engine_dir, tmp_path, "clients", WORKLOAD)
    measured = measure(command, ClientsMeasurement)
    assert measured.output_tokens == 5 * 3
    assert measured.output_tokens_per_s > 0
    assert 0 < measured.gap_p50_ms <= measured.longest_gap_ms


def test_a_server_is_started_measured_and_ended(checkpoint, tmp_path):
    peer = make_llamacpp(tmp_path / "work")
    port = free_port()
    measured = measure_server(peer.serve(tmp_path, port, WORKLOAD), port, WORKLOAD, seed=1)
    assert measured.output_tokens == 5 * 3
    assert measured.num_failed == 0
    assert measured.startup_s > 0
    assert measured.peak_rss_bytes > 0
    assert len(measured.gaps_ms) == 401


def test_a_server_that_does_not_start_has_failed():
    command = [sys.executable, "-c", "raise SystemExit('the model is missing')"]
    with pytest.raises(PeerFailed, match="did not begin to serve: the model is missing"):
        measure_server(command, free_port(), WORKLOAD, seed=1)


class CountingModel(BatchingModel):
    """Every step takes 10 ms of its clock and gives each sequence a token."""

    version = "counting"

    def __init__(self):
        self.now = 0.0
        self.left = {}
        self.most_at_once = 0

    def prefill(self, num_tokens):
        raise AssertionError

    def decode(self, streams, context, num_tokens):
        raise AssertionError

    def add(self, sequence_id, num_prompt_tokens, num_tokens):
        self.left[sequence_id] = num_tokens
        self.most_at_once = max(self.most_at_once, len(self.left))

    def step(self):
        self.now += 0.01
        advanced = []
        for sequence_id in list(self.left):
            self.left[sequence_id] -= 1
            advanced.append((sequence_id, 1, not self.left[sequence_id]))
            if not self.left[sequence_id]:
                del self.left[sequence_id]
        return advanced


def test_clients_of_a_closed_loop_send_when_their_answer_is_whole():
    model = CountingModel()
    answer = ClosedLoop(model, 8, 3, clock=lambda: model.now).run(2, 5)
    assert model.most_at_once == 2
    assert answer["output_tokens"] == 15
    assert answer["output_tokens_per_s"] == pytest.approx(15 / 0.09)  # two, two, then one client
    assert answer["ttft_p50_ms"] == pytest.approx(10)
    assert answer["longest_gap_ms"] == pytest.approx(10)
