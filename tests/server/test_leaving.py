"""Clients of a running server that hang up: their places are free before their answers are done."""

from __future__ import annotations

import re
import time

import httpx
import pytest

MAX_TOKENS = 1900
NUM_ANSWERS = 4
LONG = {"model": "tiny", "max_tokens": MAX_TOKENS, "n": NUM_ANSWERS, "ignore_eos": True}
REQUESTS = {
    "whole chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
    "whole completion": ("/v1/completions", {"prompt": "Hi"}),
    "streamed chat": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "Hi"}], "stream": True},
    ),
}


@pytest.mark.parametrize(("path", "body"), REQUESTS.values(), ids=REQUESTS)
def test_a_client_that_hangs_up_frees_its_places(server, path, body):
    with server.client() as client:
        before = metric(client, "generation_tokens_total")
        with httpx.Client(base_url=server.base_url) as impatient:
            hang_up_once_it_runs(impatient, client, path, LONG | body)
        deadline = time.monotonic() + 30
        while metric(client, "num_requests_running"):
            assert time.monotonic() < deadline, "the request still runs"
        assert metric(client, "generation_tokens_total") - before < NUM_ANSWERS * MAX_TOKENS


def hang_up_once_it_runs(
    impatient: httpx.Client, client: httpx.Client, path: str, body: dict[str, object]
) -> None:
    if body.get("stream"):
        with impatient.stream("POST", path, json=body) as response:
            next(response.iter_bytes())
        return
    with pytest.raises(httpx.ReadTimeout):
        impatient.post(path, json=body, timeout=httpx.Timeout(10, read=0.1))


def metric(client: httpx.Client, name: str) -> float:
    page = client.get("/metrics").text
    found = re.search(rf"^enginery_{name}{{.*}} (\S+)$", page, re.MULTILINE)
    assert found is not None, page
    return float(found[1])
