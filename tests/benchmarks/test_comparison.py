import json
import sys

import pytest

from benchmarks.__main__ import main
from benchmarks.machine import MIB
from benchmarks.peers.comparison import (
    BEGIN_MARK,
    END_MARK,
    Comparison,
    Variant,
    columns,
    insert_between_marks,
    markdown,
    ratio,
)
from benchmarks.peers.workload import Measurement
from tests.benchmarks.fake_peers import make_llamacpp


def variant(peer, label, *speeds, precision="int8", mib=100):
    rounds = [
        Measurement(
            prefill=10 * speed,
            decode={1: speed, 8: 4 * speed},
            peak_rss_bytes=mib * MIB,
            version=f"{peer} 1.0",
        )
        for speed in speeds
    ]
    command = f"run {label}"
    return Variant(peer=peer, precision=precision, label=label, command=command, rounds=rounds)


def comparison(*variants, **fields):
    defaults = {
        "checkpoint": "tiny",
        "date": "2026-01-02",
        "machine": {"processor": "a processor, 2 cores"},
        "workload": {
            "num_threads": 2,
            "prefill_tokens": 512,
            "decode_context": 128,
            "decode_tokens": 64,
        },
        "command": "python -m benchmarks peers",
        "left_out": [],
        "failures": [],
        "busy_share": [0.0, 0.02, 0.5],
    }
    return Comparison(variants=list(variants), **(defaults | fields))


def test_medians_stand_with_the_lowest_and_the_highest():
    report = markdown(comparison(variant("Enginery", "Enginery int8", 30, 10, 20)))
    cells = ("Enginery int8", "200 (100 to 300)", "20.0 (10.0 to 30.0)", "80.0 (40.0 to 120.0)")
    assert " | ".join(cells) in report
    assert "median of 3 interleaved rounds" in report


def test_ratios_say_how_many_times_better_by_speed_and_by_memory():
    ours = variant("Enginery", "Enginery int8", 30, 10, 20, mib=100)
    theirs = variant("Peer", "Peer Q8", 10, 10, 40, mib=150)
    values = [ratio(a, b) for a, b in zip(columns(ours), columns(theirs), strict=True)]
    assert values == pytest.approx([2.0, 2.0, 2.0, 1.5])
    assert "| Peer Q8 (int8) | 2.00 | 2.00 | 2.00 | 1.50 |" in markdown(comparison(ours, theirs))


def test_precisions_are_compared_each_with_its_own():
    report = markdown(
        comparison(
            variant("Enginery", "Enginery int8", 10),
            variant("Peer", "Peer Q8", 5),
            variant("Enginery", "Enginery int4", 30, precision="int4"),
            variant("Peer", "Peer Q4", 10, precision="int4"),
        )
    )
    assert "| Peer Q8 (int8) | 2.00 |" in report
    assert "| Peer Q4 (int4) | 3.00 |" in report


def test_peers_alone_have_no_ratios():
    assert "How many times" not in markdown(comparison(variant("Peer", "Peer Q8", 5)))


def test_the_report_says_what_it_ran_on_and_what_was_left_out():
    measured = variant("Enginery", "Enginery int8", 10)
    report = markdown(comparison(measured, left_out=["llama.cpp is left out: not there"]))
    for line in (
        "- Date: 2026-01-02",
        "- Processor: a processor, 2 cores",
        "- Versions: Enginery 1.0",
        "- Cores in use by others before the measurements: 2% in the median, 50% at most",
        "- llama.cpp is left out: not there",
        "run Enginery int8",
    ):
        assert line in report


def test_a_run_without_measurements_says_so():
    assert markdown(comparison()) == "Nothing was measured.\n"


def test_the_report_replaces_what_stood_between_the_marks():
    document = f"# Figures\n\n{BEGIN_MARK}\nold\n{END_MARK}\n\nAfter.\n"
    once = insert_between_marks(document, "new\n")
    assert once == f"# Figures\n\n{BEGIN_MARK}\n\nnew\n\n{END_MARK}\n\nAfter.\n"
    assert insert_between_marks(once, "new\n") == once


@pytest.mark.parametrize("document", ["", BEGIN_MARK, f"{END_MARK} {BEGIN_MARK}"])
def test_a_document_without_marks_is_refused(document):
    with pytest.raises(ValueError, match="lacks the marks"):
        insert_between_marks(document, "new")


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "tiny-checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def bench(monkeypatch, *arguments):
    command = ["peers", *map(str, arguments)]
    monkeypatch.setattr(sys, "argv", ["enginery bench", *command])
    monkeypatch.setattr("benchmarks.peers.command.BUSY_SAMPLE_S", 0.01)
    with pytest.raises(SystemExit) as end:
        main(command)
    return end.value.code


def test_one_command_makes_models_measures_in_turns_and_reports(checkpoint, tmp_path, monkeypatch):
    llamacpp = make_llamacpp(tmp_path / "llama")
    document, report = tmp_path / "figures.md", tmp_path / "report.json"
    document.write_text(f"{BEGIN_MARK}\n{END_MARK}\n")
    folders = ("--checkpoint", checkpoint, "--work-dir", tmp_path / "work")
    where = ("--peers", "genai", "llamacpp", "--llamacpp-dir", llamacpp)
    outputs = ("--json", report, "--update", document, "--markdown", tmp_path / "report.md")
    assert bench(monkeypatch, *folders, *where, "--rounds", "2", *outputs) == 0

    content = json.loads(report.read_text())
    assert [entry["label"] for entry in content["variants"]] == ["llama.cpp Q8_0", "llama.cpp Q4_0"]
    assert [len(entry["rounds"]) for entry in content["variants"]] == [2, 2]
    assert content["left_out"][0].startswith("onnxruntime-genai is left out")
    text = document.read_text()
    assert "| llama.cpp Q4_0 | 101 |" in text
    assert (tmp_path / "report.md").read_text() in text.replace(f"{BEGIN_MARK}\n\n", "")
    assert "--llamacpp-dir LLAMACPP_DIR --rounds 2 --json report.json" in text
    assert str(tmp_path) not in text + report.read_text()


def test_a_peer_that_fails_does_not_stop_the_others(checkpoint, tmp_path, monkeypatch, capsys):
    llamacpp = make_llamacpp(tmp_path / "llama")
    bench_tool = llamacpp / "build" / "bin" / "llama-bench"
    only_int8 = bench_tool.read_text().replace('"Q4_0": 100.0', "")
    bench_tool.write_text(only_int8)
    folders = ("--checkpoint", checkpoint, "--work-dir", tmp_path / "work")
    where = ("--peers", "llamacpp", "--llamacpp-dir", llamacpp, "--rounds", "2")
    assert bench(monkeypatch, *folders, *where) == 1
    captured = capsys.readouterr()
    assert "| llama.cpp Q8_0 | 201 |" in captured.out
    assert "llama-bench ended with status 1" in captured.out
    assert captured.err.count("failed: ") == 1


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path, monkeypatch, capsys):
    assert bench(monkeypatch, "--checkpoint", tmp_path) == 1
    assert "is no checkpoint: it holds no config.json" in capsys.readouterr().err
