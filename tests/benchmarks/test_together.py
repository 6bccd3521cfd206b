"""Engines that compute at once: what is counted, and what is refused."""

from __future__ import annotations

import json
import time

import pytest

from benchmarks.__main__ import main
from benchmarks.errors import BenchmarkFailed
from benchmarks.together import Pace, TogetherReport, paces, table


def test_each_stepper_steps_in_its_own_thread_while_the_others_do():
    short, long = paces([lambda: time.sleep(0.002), lambda: time.sleep(0.02)], 0.2)
    assert 5 <= long.steps_per_s <= 50 < short.steps_per_s <= 500
    assert long.longest_ms >= 20


def test_an_engine_that_fails_ends_the_measurement(recwarn):
    def fail():
        raise RuntimeError("out of memory")

    with pytest.raises(BenchmarkFailed, match="an engine has failed"):
        paces([fail, lambda: time.sleep(0.001)], 0.01)


def test_shares_of_engines_that_lose_nothing_add_up_to_one():
    def pace(speed):
        return Pace(steps_per_s=speed, longest_ms=1000 / speed)

    report = TogetherReport(
        machine={},
        engines=["a", "b"],
        alone=[[pace(10), pace(20)], [pace(4)]],
        together=[[pace(6)], [pace(2.4)]],
        others_share=None,
    )
    first, second, total = table(report).rows
    assert first == ["a", "15.0", "6.0", "0.40", "75.0", "166.7"]
    assert second[3] == "0.60"
    assert total[3] == "1.00"


def test_one_engine_alone_is_refused_and_two_are_measured(tiny_engine_dir, tmp_path, capsys):
    report = tmp_path / "together.json"
    load = ("--streams", "2", "--context", "8", "--seconds", "0.05", "--rounds", "1")
    load += ("--no-share-threads",)  # other tests of this process have sessions of their own
    arguments = ["together", *load, "--threads", "1", "--engine", str(tiny_engine_dir)]
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code != 0
    assert "1 engine was named" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--engine", str(tiny_engine_dir), "--json", str(report)])
    assert end.value.code == 0
    paced = json.loads(report.read_text())
    assert paced["engines"] == ["tiny", "tiny"]
    assert all(pace["steps_per_s"] > 0 for (pace,) in paced["alone"] + paced["together"])
