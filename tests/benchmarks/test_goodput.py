import pytest

from benchmarks.goodput import Limits
from benchmarks.results import RequestResult


def answer(**fields):
    return RequestResult(started_s=0, **({"latency_s": 1.0, "ttft_s": 0.2} | fields))


@pytest.mark.parametrize(
    ("limit", "is_met"),
    [
        ("ttft:200", True),
        ("ttft:199", False),
        ("itl:20", True),
        ("itl:19", False),
        ("gap:30", True),
        ("gap:29", False),
        ("e2e:1000", True),
        ("e2e:999", False),
        ("tpot:800", True),
        ("tpot:799", False),
    ],
)
def test_each_limit_is_of_its_own_time(limit, is_met):
    assert Limits([limit]).are_met(answer(gaps_s=(0.01, 0.03), num_output_tokens=2)) is is_met


def test_all_limits_have_to_be_kept():
    assert not Limits(["ttft:500", "e2e:500"]).are_met(answer())


def test_what_was_not_seen_keeps_no_first_token_but_has_no_gaps_to_break():
    assert not Limits(["ttft:500"]).are_met(answer(ttft_s=None))
    assert Limits(["gap:1", "itl:1"]).are_met(answer())


def test_a_failure_is_never_good():
    assert not Limits(["e2e:5000"]).are_met(answer(error="timeout"))
