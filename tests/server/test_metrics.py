"""What Prometheus reads after requests of every kind."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from prometheus_client.parser import text_string_to_metric_families

from engines.llm.output import EngineStats
from server.app import create_app
from server.config import ServerConfig
from server.lifecycle import Lifecycle
from server.registry import ModelRegistry
from tests.server.apps import CHAT, client, http_client, tiny_engine, tiny_model

STATS = EngineStats(
    num_waiting=0,
    num_running=0,
    num_steps=9,
    prompt_tokens=70,
    generation_tokens=30,
    prefix_cache_queries=60,
    prefix_cache_hits=20,
    kv_cache_bytes=25,
    kv_cache_limit_bytes=100,
    draft_tokens=8,
    accepted_draft_tokens=5,
)
ENGINE_METRICS = {
    "enginery_prompt_tokens_total": 70,
    "enginery_generation_tokens_total": 30,
    "enginery_prefix_cache_queries_total": 60,
    "enginery_prefix_cache_hits_total": 20,
    "enginery_draft_tokens_total": 8,
    "enginery_accepted_draft_tokens_total": 5,
    "enginery_kv_cache_usage_perc": 0.25,
    "enginery_num_requests_running": 0,
    "enginery_num_requests_waiting": 0,
}
HISTOGRAMS = (
    "enginery_time_to_first_token_seconds",
    "enginery_inter_token_latency_seconds",
    "enginery_e2e_request_latency_seconds",
    "enginery_request_queue_time_seconds",
)


def samples(text):
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name, *sorted(sample.labels.items())] = sample.value
    return found


def of_model(found, name, model="tiny", **labels):
    return found.get((name, *sorted({"model_name": model, **labels}.items())))


def scrape_after(*bodies, models=()):
    """The samples after chat requests, each with the status that it is to have."""

    async def run():
        registry = ModelRegistry(models or [tiny_model()])
        lifecycle = Lifecycle(registry, drain_timeout_s=10)
        await lifecycle.start()
        async with http_client(create_app(registry, ServerConfig(), (), lifecycle)) as http:
            for body, status in bodies:
                result = await http.post("/v1/chat/completions", json=body)
                assert result.status_code == status
            text = (await http.get("/metrics")).text
        await lifecycle.stop()
        return samples(text)

    return asyncio.run(run())


def test_what_the_engine_counts_is_shown_as_it_is():
    engine = tiny_engine()
    engine.stats = lambda: STATS
    result = client(tiny_model(engine)).simulate_get("/metrics")
    found = samples(result.text)
    for name, value in ENGINE_METRICS.items():
        assert of_model(found, name) == value
    assert of_model(found, "enginery_time_to_first_token_seconds_count") == 0


def test_the_types_are_declared():
    text = client().simulate_get("/metrics").text
    for name in ENGINE_METRICS:
        kind = "counter" if name.endswith("_total") else "gauge"
        assert f"# TYPE {name} {kind}\n" in text
    for name in HISTOGRAMS:
        assert f"# TYPE {name} histogram\n" in text
    assert "process_resident_memory_bytes" in text


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [(None, "text/plain"), ("application/openmetrics-text", "application/openmetrics-text")],
)
def test_the_format_is_the_one_that_is_asked_for(accept, content_type):
    headers = {} if accept is None else {"Accept": accept}
    result = client().simulate_get("/metrics", headers=headers)
    assert result.headers["content-type"].startswith(content_type)
    assert result.text.endswith("# EOF\n") == (accept is not None)


def test_requests_fill_the_histograms_of_their_model():
    short = CHAT | {"max_tokens": 1}
    found = scrape_after((short, 200), (short | {"stream": True}, 200), (CHAT, 200))
    assert of_model(found, "enginery_request_success_total", finish_reason="length") == 2
    assert of_model(found, "enginery_request_success_total", finish_reason="stop") == 1
    for name in HISTOGRAMS:
        if "inter_token" not in name:  # steps that come together have one gap
            assert of_model(found, f"{name}_count") == 3
            assert of_model(found, f"{name}_sum") > 0


def test_a_refused_request_fills_none_but_the_count_of_answers():
    found = scrape_after((CHAT | {"temperature": -1}, 400), (CHAT | {"model": "other"}, 404))
    for name in HISTOGRAMS:
        assert of_model(found, f"{name}_count") == 0
    route = ("route", "/v1/chat/completions")
    for status in ("400", "404"):
        key = ("enginery_http_requests_total", ("method", "POST"), route, ("status", status))
        assert found[key] == 1


def test_names_that_clients_make_up_make_no_series():
    found = scrape_after((CHAT | {"model": "made-up"}, 404))
    assert not any("made-up" in str(key) for key in found)
    text = client().simulate_get("/metrics").text
    assert "nowhere" not in text
    app = client()
    app.simulate_get("/nowhere")
    assert "nowhere" not in app.simulate_get("/metrics").text


def test_models_and_apps_do_not_share_their_counts():
    models = [tiny_model(id="a"), dataclasses.replace(tiny_model(id="b"), aliases=("c",))]
    found = scrape_after((CHAT | {"model": "c"}, 200), models=models)
    assert of_model(found, "enginery_e2e_request_latency_seconds_count", "a") == 0
    assert of_model(found, "enginery_e2e_request_latency_seconds_count", "b") == 1
    assert "HELP" in client().simulate_get("/metrics").text
