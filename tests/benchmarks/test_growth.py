import json

import pytest

from benchmarks.__main__ import main
from benchmarks.growth import GrowthConfig
from benchmarks.throughput import ThroughputMeter
from engines.llm.engine import LLMEngine
from engines.llm.scheduler import SchedulerConfig
from tests.engines.fakes import HashRunner

MARKS = "<!-- growth:begin -->\n<!-- growth:end -->\n"


def growth(*arguments):
    with pytest.raises(SystemExit) as end:
        main(["growth", *map(str, arguments)])
    return end.value.code


def test_a_row_a_context_and_a_column_a_number_of_streams(tiny_engine_dir, tmp_path):
    document, report, plots = tmp_path / "doc.md", tmp_path / "growth.json", tmp_path / "plots"
    document.write_text(MARKS)
    load = ("--contexts", "16,40", "--streams", "1,3", "--steps", "4", "--threads", "1")
    outputs = ("--json", report, "--update", document, "--plots", plots)
    assert growth("--engine", tiny_engine_dir, *load, *outputs) == 0
    cells = json.loads(report.read_text())["cells"]
    found = [(cell["context"], cell["streams"]) for cell in cells]
    assert found == [(16, 1), (16, 3), (40, 1), (40, 3)]
    assert all(cell["step_ms"] > 0 and cell["prefill"] > 0 for cell in cells)
    text = document.read_text()
    assert "| context | prefill, tokens/s | 1 x | 3 x | memory, MiB |" in text
    assert "](plots/growth.png)" in text
    assert str(tmp_path) not in text
    assert (plots / "growth.png").read_bytes().startswith(b"\x89PNG")

    def measured_again(others_share):
        kept = json.loads(report.read_text())
        for cell in kept["cells"]:
            cell |= {"others_share": 0.0, "step_ms": 7.0}
        kept["cells"][0]["others_share"] = others_share
        report.write_text(json.dumps(kept))
        assert growth("--engine", tiny_engine_dir, *load, "--json", report) == 0
        cells = json.loads(report.read_text())["cells"]
        return [(c["context"], c["streams"]) for c in cells if c["step_ms"] != 7.0]

    assert measured_again(0.05) == []
    assert measured_again(0.5) == [(16, 1)], "others had disturbed it"


def test_a_context_that_does_not_fit_is_left_out_with_a_sentence(tiny_engine_dir, capsys):
    load = ("--contexts", "999999", "--streams", "1", "--threads", "1")
    assert growth("--engine", tiny_engine_dir, *load) == 0
    output = capsys.readouterr()
    assert "tiny at 999999 is left out" in output.err
    assert output.out.startswith("Nothing was measured.")


@pytest.mark.parametrize("fields", [{"contexts": (0,)}, {"streams": ()}, {"max_minutes": 0.0}])
def test_values_without_sense_are_refused(tmp_path, fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        GrowthConfig(engine=(tmp_path,), **fields)


def test_sequences_that_are_alike_compute_their_prompt_once():
    runner = HashRunner()
    config = SchedulerConfig(max_num_seqs=3, max_context=runner.max_context)
    engine = LLMEngine(runner, config, 10_000, "test")
    now = iter(range(1, 1000))
    speed = ThroughputMeter(engine, clock=lambda: float(next(now))).decode_alike(3, 20, 5)
    assert speed == 15
    assert engine.stats().prefix_cache_hits > 0
    assert not engine.has_work
