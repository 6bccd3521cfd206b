import json

import pytest

from benchmarks.__main__ import main
from benchmarks.server_path.command import ServerPathConfig
from benchmarks.server_path.null_engine import NullEngine
from engines.llm.sampling_params import SamplingParams
from engines.llm.sequence import FinishReason, Sequence


def test_every_token_goes_through_the_whole_server(tiny_engine_dir, tmp_path, capsys):
    path = tmp_path / "report.json"
    load = ("--streams", "4", "--tokens", "50", "--rounds", "2", "--json", str(path), "--profile")
    with pytest.raises(SystemExit) as end:
        main(["server-path", "--engine-dir", str(tiny_engine_dir), *load])
    assert end.value.code == 0
    report = json.loads(path.read_text())
    assert len(report["tokens_per_s"]) == 2
    assert min(report["tokens_per_s"] + report["tokens_per_cpu_s"]) > 0
    assert min(report["events_per_token"]) > 0.9
    out = capsys.readouterr().out
    assert "4 streams on one core" in out
    assert "Ordered by: internal time" in out


def test_a_null_engine_gives_each_sequence_its_tokens_and_no_more():
    engine = NullEngine([5, 6, 7], max_num_seqs=2, max_context=100)
    for seq_id in (0, 1):
        params = SamplingParams(max_tokens=2 + seq_id, ignore_eos=True)
        engine.add(Sequence.from_prompt(seq_id, [1], params))
    reasons = []
    while engine.has_work:
        reasons += [(o.seq_id, o.finish_reason) for o in engine.step()]
    length = FinishReason.LENGTH
    assert reasons == [(0, None), (1, None), (0, length), (1, None), (1, length)]
    assert engine.stats().generation_tokens == 5


@pytest.mark.parametrize("field", ["streams", "tokens", "rounds"])
def test_numbers_below_one_are_refused_by_name(field, tmp_path):
    with pytest.raises(ValueError, match=f"{field} is 0"):
        ServerPathConfig(engine_dir=tmp_path, **{field: 0})
