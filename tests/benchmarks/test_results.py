import pytest

from benchmarks.results import RequestResult, distribution, summarize


def done(started_s=0.0, latency_s=2.0, **fields):
    defaults = {
        "ttft_s": 0.5,
        "gaps_s": (0.5, 1.0),
        "num_prompt_tokens": 10,
        "num_output_tokens": 4,
        "tokens_from_usage": True,
    }
    return RequestResult(started_s=started_s, latency_s=latency_s, **(defaults | fields))


def failed(error, started_s=0.0, latency_s=0.1):
    return RequestResult(started_s=started_s, latency_s=latency_s, error=error)


def test_percentiles_interpolate_between_the_two_nearest_values():
    values = distribution([4.0, 1.0, 3.0, 2.0, 5.0])
    assert values is not None
    assert values.count == 5
    assert values.mean == pytest.approx(3.0)
    assert values.p50 == pytest.approx(3.0)
    assert values.p90 == pytest.approx(4.6)
    assert values.p95 == pytest.approx(4.8)
    assert values.p99 == pytest.approx(4.96)
    assert values.max == 5.0


def test_without_values_there_is_no_distribution():
    assert distribution([]) is None


def test_time_per_output_token_leaves_out_the_first_token():
    assert done().tpot_s == pytest.approx((2.0 - 0.5) / 3)
    assert done(num_output_tokens=1).tpot_s is None
    assert done(ttft_s=None).tpot_s is None


def test_rates_are_over_the_time_from_the_first_start_to_the_last_end():
    summary = summarize([done(started_s=1.0), done(started_s=3.0)])
    assert summary.duration_s == pytest.approx(4.0)
    assert summary.requests_per_s == pytest.approx(2 / 4)
    assert summary.output_tokens_per_s == pytest.approx(8 / 4)
    assert summary.total_tokens_per_s == pytest.approx(28 / 4)


def test_latencies_are_in_milliseconds_and_gaps_of_all_requests_are_pooled():
    summary = summarize([done(), done(gaps_s=(0.1,))])
    assert summary.ttft_ms is not None
    assert summary.ttft_ms.p50 == pytest.approx(500)
    assert summary.itl_ms is not None
    assert summary.itl_ms.count == 3
    assert summary.itl_ms.max == pytest.approx(1000)


def test_failed_requests_are_counted_by_kind_and_in_no_rate():
    summary = summarize([done(), failed("timeout"), failed("HTTP 429"), failed("timeout")])
    assert summary.num_failed == 3
    assert list(summary.errors.items()) == [("timeout", 2), ("HTTP 429", 1)]
    assert summary.output_tokens == 4
    assert summary.latency_ms is not None
    assert summary.latency_ms.count == 1


def test_a_run_in_which_everything_failed_has_no_latencies():
    summary = summarize([failed("timeout")])
    assert summary.latency_ms is None
    assert summary.requests_per_s == 0
    assert summary.total_tokens_per_s is None


def test_the_source_of_the_token_counts_is_said():
    counted = done(tokens_from_usage=False, num_prompt_tokens=None)
    assert summarize([done()]).token_counts == "the server's usage"
    assert summarize([counted]).token_counts.startswith("chunks")
    mixed = summarize([done(), counted])
    assert mixed.token_counts.startswith("the server's usage for 1 of 2 requests")
    assert mixed.total_tokens_per_s is None


def test_nothing_cannot_be_summarized():
    with pytest.raises(ValueError, match="no results"):
        summarize([])
