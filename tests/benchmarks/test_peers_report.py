import json
import sys

import pytest

from benchmarks.__main__ import main
from benchmarks.comparison import shown_pictures
from benchmarks.machine import MIB
from benchmarks.markdown import insert_between
from benchmarks.peers.config import PeersConfig
from benchmarks.peers.report import DEFAULT_SHAPE, Comparison, Contestant, markdown, marks
from benchmarks.peers.workload import ClientsMeasurement, EngineMeasurement, Workload
from tests.benchmarks.fake_peers import make_llamacpp


def contestant(peer, label, *speeds, precision="int8", mib=100, **stages):
    engine = [
        EngineMeasurement(
            prefill=10 * speed,
            decode={1: speed, 8: 4 * speed},
            peak_rss_bytes=mib * MIB,
            startup_s=1.5,
            version=f"{peer} 1.0",
        )
        for speed in speeds
    ]
    commands = {"engine": f"run {label}"}
    return Contestant(
        peer=peer, precision=precision, label=label, commands=commands, engine=engine, **stages
    )


def clients(rate, first, gap):
    return ClientsMeasurement(
        output_tokens_per_s=rate,
        output_tokens=100,
        ttft_p50_ms=first,
        gap_p50_ms=5.0,
        longest_gap_ms=gap,
        gaps_ms=[float(gap)] * 401,
        peak_rss_bytes=200 * MIB,
        startup_s=1.0,
    )


def comparison(*contestants, **fields):
    defaults = {
        "checkpoint": "tiny",
        "date": "2026-01-02",
        "machine": {"processor": "a processor, 2 cores"},
        "workload": Workload(num_threads=2),
        "command": "python -m benchmarks peers",
        "left_out": [],
        "failures": [],
        "others_share": [0.0, 0.02, 0.5],
    }
    return Comparison(contestants=list(contestants), **(defaults | fields))


def test_medians_stand_with_the_lowest_and_the_highest():
    report = markdown(comparison(contestant("Enginery", "Enginery int8", 30, 10, 20)))
    cells = ("Enginery int8", "200 (100 to 300)", "20.0 (10.0 to 30.0)", "80.0 (40.0 to 120.0)")
    assert " | ".join(cells) in report
    assert "medians of up to 3 interleaved rounds" in report


def test_goals_are_compared_with_the_best_peer():
    report = markdown(
        comparison(
            contestant("Enginery", "Enginery int8", 30),
            contestant("Slow", "Slow Q8", 5),
            contestant("Fast", "Fast Q4", 15, precision="int4"),
        )
    )
    goal = "| prefill of 512, tokens/s | 1.3x | 300 | Fast Q4: 150 | 2.00, reached |"
    assert goal in report
    assert "start-up" not in report[report.index("Goals") :]  # its rival was not measured


def test_goals_of_clients_say_by_how_much_they_are_missed():
    ours = contestant("Enginery", "Enginery int8", 30, http=[clients(90, 1000, 300)])
    theirs = contestant(
        "llama.cpp", "llama.cpp Q4_0", 10, precision="int4", http=[clients(40, 4000, 4500)]
    )
    report = markdown(comparison(ours, theirs))
    assert "| HTTP, output tokens/s | 3x | 90.0 | llama.cpp Q4_0: 40.0 | 2.25, missed |" in report
    assert "4.00, reached" in report
    assert "15.00, reached" in report


def test_peers_alone_have_no_goals():
    assert "Goals" not in markdown(comparison(contestant("Peer", "Peer Q8", 5)))


def test_the_report_says_what_it_ran_on_and_what_was_left_out():
    measured = contestant("Enginery", "Enginery int8", 10)
    report = markdown(comparison(measured, left_out=["llama.cpp is left out: not there"]))
    for line in (
        "- Date: 2026-01-02",
        "- Processor: a processor, 2 cores",
        "- Versions: Enginery 1.0",
        "- Cores in use by others during the measurements: 2% in the median, 50% at most",
        "- llama.cpp is left out: not there",
        "run Enginery int8",
    ):
        assert line in report


def test_a_run_without_measurements_says_so():
    assert markdown(comparison()) == "Nothing was measured.\n"


def test_bars_and_gaps_are_drawn_for_what_was_measured(tmp_path):
    from benchmarks.plots.peers import write_peer_plots

    ours = contestant("Enginery", "Enginery int8", 30, 20, http=[clients(90, 1000, 300)])
    theirs = contestant("Peer", "Peer Q8", 10, http=[clients(40, 4000, 4500)])
    captions = write_peer_plots(comparison(ours, theirs), tmp_path)
    lines = shown_pictures(tmp_path, captions, tmp_path.parent / "doc.md")
    assert lines[0].endswith(f"]({tmp_path.name}/peers-engine.png)")
    assert lines[0] in markdown(comparison(ours, theirs), lines)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"peers-engine.png", "peers-http.png", "peers-gaps.png"}


BEGIN, END = marks(DEFAULT_SHAPE)


def test_each_checkpoint_has_a_section_of_its_own():
    begin, end = marks("qwen3.5-0.8b")
    document = f"{BEGIN}\nfirst\n{END}\n{begin}\nsecond\n{end}\n"
    changed = insert_between(document, "new", begin, end)
    assert changed == f"{BEGIN}\nfirst\n{END}\n{begin}\n\nnew\n\n{end}\n"


def test_the_report_replaces_what_stood_between_the_marks():
    document = f"# Figures\n\n{BEGIN}\nold\n{END}\n\nAfter.\n"
    once = insert_between(document, "new\n", BEGIN, END)
    assert once == f"# Figures\n\n{BEGIN}\n\nnew\n\n{END}\n\nAfter.\n"
    assert insert_between(once, "new\n", BEGIN, END) == once


@pytest.mark.parametrize("document", ["", BEGIN, f"{END} {BEGIN}"])
def test_a_document_without_marks_is_refused(document):
    with pytest.raises(ValueError, match="lacks the marks"):
        insert_between(document, "new", BEGIN, END)


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "tiny-checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def bench(monkeypatch, *arguments):
    command = ["peers", *map(str, arguments)]
    monkeypatch.setattr(sys, "argv", ["enginery bench", *command])
    with pytest.raises(SystemExit) as end:
        main(command)
    return end.value.code


QUICK = ("--client-requests", "4", "--client-prompt", "20", "--client-tokens", "3")


def test_one_command_makes_models_measures_in_turns_and_reports(checkpoint, tmp_path, monkeypatch):
    work = tmp_path / "work"
    make_llamacpp(work)
    document, report = tmp_path / "figures.md", tmp_path / "report.json"
    begin, end = marks(checkpoint.name)
    document.write_text(f"{begin}\n{end}\n")
    where = ("--checkpoint", checkpoint, "--work-dir", work, "--peers", "genai", "llamacpp")
    outputs = ("--json", report, "--update", document, "--markdown", tmp_path / "report.md")
    assert bench(monkeypatch, *where, "--rounds", "2", *QUICK, *outputs) == 0

    content = json.loads(report.read_text())
    labels = [entry["label"] for entry in content["contestants"]]
    assert labels == ["llama.cpp Q8_0", "llama.cpp Q4_0"]
    assert [len(entry["engine"]) for entry in content["contestants"]] == [2, 2]
    assert [len(entry["http"]) for entry in content["contestants"]] == [2, 2]
    assert content["left_out"] == ["onnxruntime-genai is left out: WORK_DIR/genai is not set up"]
    text = document.read_text()
    assert "| llama.cpp Q4_0 | 101 |" in text
    assert "8 clients over HTTP" in text
    assert (tmp_path / "report.md").read_text() in text.replace(f"{begin}\n\n", "")
    assert "--peers genai llamacpp --rounds 2" in text
    assert str(tmp_path) not in text + report.read_text()


def test_a_run_that_is_cut_short_goes_on_where_it_was(checkpoint, tmp_path, monkeypatch, capsys):
    work, journal = tmp_path / "work", tmp_path / "journal.jsonl"
    make_llamacpp(work)
    where = ("--checkpoint", checkpoint, "--work-dir", work, "--peers", "llamacpp")
    once = ("--stages", "engine", "--journal", journal, "--rounds", "1")
    load = (*once[:-1], "2")
    assert bench(monkeypatch, *where, *load, "--stop-after", "0.001") == 75
    assert "run the same command again" in capsys.readouterr().err
    assert bench(monkeypatch, *where, *once) == 0
    first = journal.read_text()
    assert first.count("\n") == 2
    journal.write_text(first + '{"settings": "cut sho')  # as a killed run leaves it
    journal.write_text(first)
    assert bench(monkeypatch, *where, *load) == 0
    assert journal.read_text().startswith(first)
    assert journal.read_text().count("\n") == 4
    assert bench(monkeypatch, *where, *load, "--prefill-tokens", "100") == 0
    assert journal.read_text().count("\n") == 8  # other settings are measured anew


def test_a_peer_that_fails_does_not_stop_the_others(checkpoint, tmp_path, monkeypatch, capsys):
    peer = make_llamacpp(tmp_path / "work")
    tool = peer.setup.source / "build" / "bin" / "llama-bench"
    tool.write_text(tool.read_text().replace('"Q4_0": 100.0', ""))
    where = ("--checkpoint", checkpoint, "--work-dir", tmp_path / "work", "--stages", "engine")
    assert bench(monkeypatch, *where, "--peers", "llamacpp", "--rounds", "2") == 1
    captured = capsys.readouterr()
    assert "| llama.cpp Q8_0 | 201 |" in captured.out
    assert "llama-bench ended with status 1" in captured.out
    assert captured.err.count("failed: ") == 1


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path, monkeypatch, capsys):
    assert bench(monkeypatch, "--checkpoint", tmp_path) == 1
    assert "is no checkpoint: it holds no config.json" in capsys.readouterr().err


def test_cutting_short_needs_a_journal():
    with pytest.raises(ValueError, match="so journal must name a file"):
        PeersConfig(stop_after=60)
