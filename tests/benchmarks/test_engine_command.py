import json

import pytest

from benchmarks.__main__ import main
from benchmarks.engine import EngineBenchConfig, choose_engine
from benchmarks.errors import BenchmarkFailed
from benchmarks.machine import busy_share, describe_machine, resident_bytes
from engines.store import find_engines

SMALL = ("--prefill-tokens", "40", "--decode-context", "8", "--decode-tokens", "4")
QUICK = (
    *SMALL,
    "--repetitions",
    "1",
    "--num-seqs",
    "1,2",
    "--parts",
    "2",
    "--steps",
    "4",
    "--threads",
    "1",
)


def bench(*arguments):
    with pytest.raises(SystemExit) as end:
        main(["engine", *map(str, arguments)])
    return end.value.code


def test_an_engine_is_measured_without_a_server(tiny_engine_dir, tmp_path, capsys):
    path = tmp_path / "report.json"
    assert bench("--engine", tiny_engine_dir, *QUICK, "--json", path) == 0
    report = json.loads(path.read_text())
    assert report["engine"] == "tiny"
    assert set(report["decode_tokens_per_s"]) == {"1", "2"}
    assert report["prefill_tokens_per_s"] > 0
    assert report["load_s"] > 0
    assert [row["num_seqs"] for row in report["steps"]] == [2] * 4
    assert 0 < report["loaded_bytes"] <= report["peak_bytes"]
    assert str(tiny_engine_dir) not in path.read_text()
    out = capsys.readouterr().out
    for row in ("prefill, 40 tokens", "decode, 1 sequence", "decode, 2 sequences", "our own"):
        assert row in out


def test_a_prompt_longer_than_the_context_is_refused(tiny_engine_dir, capsys):
    arguments = ("--engine", tiny_engine_dir, "--prefill-tokens", "5000", "--threads", "1")
    assert bench(*arguments) == 1
    assert "the engine's context is 2048 tokens" in capsys.readouterr().err


def test_a_folder_without_engines_is_refused(tmp_path, capsys):
    assert bench("--engine", tmp_path) == 1
    assert "holds no engine" in capsys.readouterr().err


def test_the_engine_is_the_only_one_or_the_one_that_is_named(tiny_engine_dir):
    folders = find_engines(tiny_engine_dir)
    assert choose_engine(folders, None) == choose_engine(folders, "tiny") == folders[0]
    with pytest.raises(BenchmarkFailed, match="model is 'other', but the folder holds tiny"):
        choose_engine(folders, "other")
    with pytest.raises(BenchmarkFailed, match="the folder holds tiny, tiny: choose one"):
        choose_engine(folders * 2, None)


def test_counts_below_one_are_refused(tmp_path):
    with pytest.raises(ValueError, match="decode_tokens is 0, but it must be at least 1"):
        EngineBenchConfig(engine=tmp_path, decode_tokens=0)
    with pytest.raises(ValueError, match="num_seqs must name"):
        EngineBenchConfig(engine=tmp_path, num_seqs=(1, 0))


def test_the_machine_is_described():
    facts = describe_machine("numpy", "no-such-package")
    assert "cores" in facts["processor"]
    assert "numpy" in facts
    assert "no-such-package" not in facts


def test_memory_of_this_process_is_known_on_linux():
    now, peak = resident_bytes()
    assert 0 < now <= peak


def test_the_busy_share_is_a_share():
    share = busy_share(0.05)
    assert share is None or 0 <= share <= 1
