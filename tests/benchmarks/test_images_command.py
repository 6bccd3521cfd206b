import json
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.errors import PeerFailed
from benchmarks.images.catalogue import Model, OpenVino
from benchmarks.images.comparison import BEGIN_MARK, END_MARK
from benchmarks.images.process import make_models, run_with_cost
from benchmarks.machine import MIB, OthersMeter
from tests.benchmarks.fake_openvino import make_f32_model, make_modules


class ScriptedContestant:
    """Its model is made by a Python program; nothing is run."""

    label = "Scripted"

    def __init__(self, source):
        self.source = source

    def models(self, checkpoint, made_dir):
        def build(target):
            return [sys.executable, "-c", f"TARGET = {str(target)!r}\n{self.source}"]

        return [Model("scripted", build)]


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "model_index.json").write_text("{}")
    return folder


@pytest.fixture
def openvino(tmp_path, monkeypatch):
    """OpenVINO in the Python of the tests, with its f32 model made."""
    monkeypatch.setenv("PYTHONPATH", str(make_modules(tmp_path / "modules")))
    make_f32_model(tmp_path / "work" / "tiny" / "openvino-f32")
    return tmp_path / "work"


def bench(monkeypatch, checkpoint, *arguments):
    command = ["images", "--checkpoint", str(checkpoint), *map(str, arguments)]
    monkeypatch.setattr(sys, "argv", ["enginery bench", *command])
    with pytest.raises(SystemExit) as end:
        main(command)
    return end.value.code


def openvino_run(openvino, *names):
    where = ("--work-dir", openvino, "--openvino-python", sys.executable)
    return (*where, "--sizes", "32", "16", "--threads", "3", "--contestants", *names)


def test_one_command_quantizes_measures_in_turns_and_reports(
    checkpoint, openvino, tmp_path, monkeypatch
):
    document, report = tmp_path / "figures.md", tmp_path / "report.json"
    document.write_text(f"{BEGIN_MARK}\n{END_MARK}\n")
    names = ("openvino-f32", "openvino-int8-weights", "openvino-int8")
    outputs = ("--json", report, "--update", document, "--markdown", tmp_path / "report.md")
    rounds = ("--rounds", "2", "--once", "openvino-int8")
    run = openvino_run(openvino, *names)
    assert bench(monkeypatch, checkpoint, *run, *rounds, *outputs) == 0

    content = json.loads(report.read_text())
    assert [entry["name"] for entry in content["variants"]] == list(names)
    assert [len(entry["rounds"]) for entry in content["variants"]] == [2, 2, 1]
    assert set(content["variants"][0]["rounds"][0]["step_s"]) == {"16", "32"}
    assert content["variants"][0]["rounds"][0]["version"] == "OpenVINO 2030.1.0"
    assert all(0 <= share <= 1 for share in content["others_share"])
    text = document.read_text()
    assert "| OpenVINO f32, int8 weights | " in text
    assert "step, 16 px | step, 32 px" in text
    assert (tmp_path / "report.md").read_text() in text.replace(f"{BEGIN_MARK}\n\n", "")
    assert str(tmp_path) not in text + report.read_text()

    made = openvino / "tiny"
    assert (made / "openvino-int8-weights" / "unet.xml").read_text() == "unet with small weights"
    assert (made / "openvino-int8" / "unet.xml").read_text() == "unet in int8, seen 5 samples of 3"
    assert (made / "openvino-int8" / "text_encoder.xml").read_text() == "text_encoder"


def test_a_contestant_that_fails_does_not_stop_the_others(
    checkpoint, openvino, monkeypatch, capsys
):
    run = openvino_run(openvino, "openvino-bf16", "openvino-f32")
    assert bench(monkeypatch, checkpoint, *run, "--rounds", "2") == 1
    captured = capsys.readouterr()
    assert "| OpenVINO f32 | " in captured.out
    assert "this machine has no bf16" in captured.out
    assert captured.err.count("failed: ") == 1


def test_rounds_that_would_end_too_late_are_not_begun(checkpoint, openvino, tmp_path, monkeypatch):
    report = tmp_path / "report.json"
    run = openvino_run(openvino, "openvino-f32", "openvino-int8-weights")
    limits = ("--rounds", "3", "--max-minutes", "0.0001", "--json", report)
    assert bench(monkeypatch, checkpoint, *run, *limits) == 0
    variants = json.loads(report.read_text())["variants"]
    assert [len(entry["rounds"]) for entry in variants] == [1, 1]


def test_contestants_that_are_not_there_are_left_out_with_a_sentence(tmp_path):
    nowhere = tmp_path / "nowhere"
    assert "name a Python that has it with --openvino-python" in str(OpenVino(None).missing())
    assert f"{nowhere} does not exist" in str(OpenVino(nowhere).missing())
    missing = OpenVino(Path(sys.executable)).missing()
    assert missing is not None
    assert missing.endswith("cannot import openvino")


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path, monkeypatch, capsys):
    assert bench(monkeypatch, tmp_path) == 1
    assert "is no checkpoint of a pipeline" in capsys.readouterr().err


def test_a_model_is_made_once_with_its_cost_and_again_where_that_is_asked(checkpoint, tmp_path):
    source = "import pathlib; pathlib.Path(TARGET, 'model').touch(); kept = b'.' * (200 << 20)"
    contestant = ScriptedContestant(source)
    folder, cost = make_models(contestant, checkpoint, tmp_path / "work", force=False)
    assert cost is not None
    assert cost.peak_rss_bytes > 200 * MIB
    (folder / "mark").touch()
    again = make_models(contestant, checkpoint, tmp_path / "work", force=False)
    assert again == (folder, cost)
    assert (folder / "mark").exists()
    make_models(contestant, checkpoint, tmp_path / "work", force=True)
    assert [path.name for path in folder.iterdir()] == ["model"]


def test_a_build_that_fails_is_never_taken_for_a_model(checkpoint, tmp_path):
    contestant = ScriptedContestant("raise SystemExit('no space for the model')")
    for _ in range(2):
        with pytest.raises(PeerFailed, match="ended with status 1: no space for the model"):
            make_models(contestant, checkpoint, tmp_path / "work", force=False)
    assert not (tmp_path / "work" / "tiny" / "scripted").exists()


def test_a_build_command_that_does_not_exist_has_failed():
    with pytest.raises(PeerFailed, match="cannot be started"):
        run_with_cost(["/no/such/program"])


def test_what_others_use_of_the_machine_is_a_share():
    meter = OthersMeter()
    run_with_cost([sys.executable, "-c", "sum(range(1_000_000))"])
    share = meter.share()
    assert share is None or 0 <= share <= 1
