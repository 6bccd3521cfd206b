"""Health, readiness, version, and how the engines' threads start and stop."""

from __future__ import annotations

import asyncio

import pytest

from engines import __version__
from engines.errors import RunFailed
from engines.llm.sampling_params import SamplingParams
from engines.llm.sequence import Sequence
from server.app import create_app
from server.config import ServerConfig
from server.errors import ServerUnavailable
from server.lifecycle import Lifecycle
from server.registry import ModelRegistry
from tests.server.apps import CHAT, client, http_client, tiny_engine, tiny_model


def sequence(worker, max_tokens=50):
    sampling = SamplingParams(max_tokens=max_tokens, ignore_eos=True)
    return Sequence.from_prompt(worker.new_ids(1)[0], [1, 2], sampling)


def test_health_tells_of_every_engine_and_of_the_first_as_image_servers_do():
    result = client(tiny_model(id="a"), tiny_model(id="b")).simulate_get("/health")
    assert result.status_code == 200
    entry = {"kind": "chat", "status": "ok", "queue_size": 0, "device": "cpu"}
    assert result.json == {
        "status": "ok",
        "models": [{"id": "a"} | entry, {"id": "b"} | entry],
        "model": "a",
        "queue_size": 0,
        "device": "cpu",
    }


def test_readiness_and_version():
    assert client().simulate_get("/ready").json == {"status": "ready"}
    assert client().simulate_get("/version").json == {"version": __version__}


def test_the_threads_run_while_the_app_does_and_can_be_started_again():
    model = tiny_model()
    app = client(model)
    for _ in range(3):
        assert app.simulate_get("/ready").status_code == 200
        assert not model.worker.is_alive


def run_app(scenario, *models):
    """Run `scenario(lifecycle, http)` with an app whose engines' threads are not started yet."""

    async def run():
        registry = ModelRegistry(models)
        lifecycle = Lifecycle(registry, drain_timeout_s=10)
        async with http_client(create_app(registry, ServerConfig(), (), lifecycle)) as http:
            try:
                await scenario(lifecycle, http)
            finally:
                await lifecycle.stop(timeout_s=0)

    asyncio.run(run())


def test_before_the_start_the_server_is_not_ready_but_nothing_is_wrong():
    async def scenario(lifecycle, http):
        ready = await http.get("/ready")
        assert (ready.status_code, ready.json()) == (503, {"status": "starting"})
        assert (await http.get("/health")).status_code == 200

    run_app(scenario, tiny_model())


def test_a_dead_engine_is_seen_at_once():
    engine = tiny_engine()
    engine.failure = RunFailed("the flux has run out")

    async def scenario(lifecycle, http):
        await lifecycle.start()
        assert (await http.get("/health")).status_code == 200
        await http.post("/v1/chat/completions", json=CHAT | {"model": "broken"})
        health = await http.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "error")
        assert [model["status"] for model in health.json()["models"]] == ["ok", "error"]
        ready = await http.get("/ready")
        assert (ready.status_code, ready.json()) == (503, {"status": "error"})
        assert [model.id for model in lifecycle.failed_models] == ["broken"]
        answer = await http.post("/v1/chat/completions", json=CHAT | {"model": "sound"})
        assert answer.status_code == 200

    run_app(scenario, tiny_model(id="sound"), tiny_model(engine, id="broken"))


def test_a_draining_server_refuses_what_is_new_and_tells_operators():
    async def scenario(lifecycle, http):
        await lifecycle.start()
        lifecycle.is_draining = True
        for path in ("/v1/models", "/version", "/openapi.json"):
            refused = await http.get(path)
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "shutting_down"
            assert refused.headers["connection"] == "close"
            assert int(refused.headers["retry-after"]) > 0
        assert (await http.post("/v1/chat/completions", json=CHAT)).status_code == 503
        ready = await http.get("/ready")
        assert (ready.status_code, ready.json()) == (503, {"status": "draining"})
        health = await http.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "draining")
        assert (await http.get("/metrics")).status_code == 200

    run_app(scenario, tiny_model())


def test_the_queue_is_seen_in_health():
    engine = tiny_engine(max_num_seqs=2)
    model = tiny_model(engine)

    async def scenario(lifecycle, http):
        await lifecycle.start()
        engine.hold()
        streams = [model.worker.run([sequence(model.worker)]) for _ in range(5)]
        health = (await http.get("/health")).json()
        assert health["queue_size"] == health["models"][0]["queue_size"] == 3
        for stream in streams:
            stream.close()
        engine.run()

    run_app(scenario, model)


def test_stopping_ends_what_does_not_end_by_itself():
    engine = tiny_engine()
    model = tiny_model(engine)

    async def scenario(lifecycle, http):
        await lifecycle.start()
        engine.hold()
        stream = model.worker.run([sequence(model.worker)])
        stopping = asyncio.create_task(lifecycle.stop(timeout_s=0))
        with pytest.raises(ServerUnavailable):
            async for _ in stream:
                pass
        engine.run()
        await stopping
        assert not model.worker.is_alive
        assert lifecycle.failed_models == []

    run_app(scenario, model)
