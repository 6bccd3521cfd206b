import asyncio

import pytest

from benchmarks.arrivals import arrival_times, send_all
from benchmarks.prompts import Prompt
from benchmarks.results import RequestResult

PROMPTS = [Prompt(text=str(number)) for number in range(12)]


class CountingSend:
    """Answers after a few turns of the event loop and knows how many were in flight at most."""

    def __init__(self):
        self.in_flight = 0
        self.most = 0

    async def __call__(self, prompt):
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        for _ in range(3 + int(prompt.text) % 4):
            await asyncio.sleep(0)
        self.in_flight -= 1
        return RequestResult(started_s=0.0, latency_s=0.0, num_output_tokens=int(prompt.text))


def run(send, limit):
    seen = []
    results = asyncio.run(send_all(send, PROMPTS, [0.0] * len(PROMPTS), limit, seen.append))
    return results, seen


@pytest.mark.parametrize(("limit", "most"), [(1, 1), (5, 5), (None, 12)])
def test_no_more_requests_are_in_flight_than_asked_for(limit, most):
    send = CountingSend()
    run(send, limit)
    assert send.most == most


def test_results_keep_the_order_of_the_prompts_and_each_is_reported_once():
    results, seen = run(CountingSend(), 5)
    assert [result.num_output_tokens for result in results] == list(range(12))
    assert sorted(result.num_output_tokens for result in seen) == list(range(12))


def test_without_a_rate_everything_is_due_at_once():
    assert arrival_times(3, None, seed=0) == [0.0, 0.0, 0.0]


def test_arrivals_are_a_poisson_process_of_the_rate():
    due = arrival_times(20_000, 50.0, seed=3)
    gaps = [after - before for before, after in zip([0.0, *due], due, strict=False)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert min(gaps) >= 0
    assert mean == pytest.approx(1 / 50, rel=0.05)
    assert deviation == pytest.approx(mean, rel=0.05)  # as of an exponential distribution


def test_the_seed_fixes_the_arrivals():
    assert arrival_times(5, 2.0, seed=1) == arrival_times(5, 2.0, seed=1)
    assert arrival_times(5, 2.0, seed=1) != arrival_times(5, 2.0, seed=2)
