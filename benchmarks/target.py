"""The server that a load is sent to: its address and the model it serves."""

from __future__ import annotations

from urllib.parse import urlsplit

import httpx

from benchmarks.errors import BenchmarkFailed


def check_url(base_url: str) -> None:
    """Raise ValueError for what is no http or https URL."""
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"base_url is {base_url!r}, but it must be an http or https URL")


def api_url(base_url: str) -> str:
    """The base of the API's paths: `/v1` is added to a bare host."""
    has_path = urlsplit(base_url).path.strip("/") != ""
    return base_url.rstrip("/") + ("" if has_path else "/v1")


async def only_model(http: httpx.AsyncClient) -> str:
    """The model that the server lists.

    Raises:
        BenchmarkFailed: There is no list, or it does not name exactly one.
    """
    try:
        response = await http.get("/models")
        response.raise_for_status()
        models = [str(entry["id"]) for entry in response.json()["data"]]
    except httpx.HTTPError as error:
        raise BenchmarkFailed(f"{http.base_url}models cannot be read: {error}") from None
    except (ValueError, KeyError, TypeError):
        raise BenchmarkFailed(f"{http.base_url}models is no list of models") from None
    if len(models) != 1:
        listed = ", ".join(models) or "none"
        raise BenchmarkFailed(f"the server lists {listed}: choose one with --model")
    return models[0]
