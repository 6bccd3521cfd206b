"""Which pages may call, as browsers ask it."""

from __future__ import annotations

import pytest

from tests.server.apps import client

PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
}
LOCAL = [
    "http://localhost",
    "http://localhost:3000",
    "https://localhost:8443",
    "http://127.0.0.1:8000",
    "http://[::1]:5173",
]
FOREIGN = [
    "https://example.org",
    "http://localhost.example.org",
    "http://localhost:80.example.org",
    "http://127.0.0.1.nip.io",
    "http://127.0.0.2",
    "null",
    "file://",
]


def preflight(app, origin, path="/v1/chat/completions"):
    return app.simulate_options(path, headers=PREFLIGHT | {"Origin": origin})


def page(app, origin):
    return app.simulate_get("/v1/models", headers={"Origin": origin})


@pytest.mark.parametrize("origin", LOCAL)
def test_pages_on_this_machine_may_call(origin):
    result = page(client(), origin)
    assert result.status_code == 200
    assert result.headers["access-control-allow-origin"] == origin
    assert result.headers["vary"] == "Origin"
    assert "x-request-id" in result.headers["access-control-expose-headers"]


@pytest.mark.parametrize("origin", FOREIGN)
def test_other_pages_may_not_read_answers(origin):
    result = page(client(), origin)
    assert "access-control-allow-origin" not in result.headers
    assert result.headers["vary"] == "Origin"


def test_a_preflight_needs_no_key_and_names_methods_and_headers():
    result = preflight(client(api_keys=["k"]), "http://localhost:3000")
    assert (result.status_code, result.text) == (204, "")
    assert result.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert {"GET", "POST", "DELETE", "OPTIONS"} == set(
        result.headers["access-control-allow-methods"].split(", ")
    )
    assert "x-stainless-os" in result.headers["access-control-allow-headers"]
    assert int(result.headers["access-control-max-age"]) > 0


def test_a_preflight_that_asks_for_no_headers_hears_of_the_usual_ones():
    headers = {"Origin": "http://localhost", "Access-Control-Request-Method": "GET"}
    result = client().simulate_options("/v1/models", headers=headers)
    assert "authorization" in result.headers["access-control-allow-headers"]


def test_a_preflight_of_another_page_is_refused_with_what_to_do():
    result = preflight(client(), "https://example.org")
    assert result.status_code == 403
    assert "--cors-origin https://example.org" in result.json["error"]["message"]
    assert "access-control-allow-origin" not in result.headers


def test_named_origins_may_call_and_no_others():
    app = client(cors_origin=("https://example.org/,https://Other.example:8443",))
    for origin in ("https://example.org", "https://other.example:8443", *LOCAL):
        assert preflight(app, origin).status_code == 204
        assert page(app, origin).headers["access-control-allow-origin"] == origin
    for origin in ("http://example.org", "https://example.org:444", "https://a.example.org"):
        assert preflight(app, origin).status_code == 403


def test_a_star_lets_every_page_call():
    app = client(cors_origin=("*",))
    for origin in FOREIGN:
        assert preflight(app, origin).status_code == 204


def test_a_page_can_read_why_its_key_is_refused():
    result = page(client(api_keys=["k"]), "http://localhost:3000")
    assert result.status_code == 401
    assert result.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert "x-request-id" in result.headers


def test_requests_that_come_from_no_page_get_no_such_headers():
    headers = client().simulate_get("/v1/models").headers
    assert not [name for name in headers if name.startswith("access-control")]
    assert client(api_keys=["k"]).simulate_options("/v1/models").status_code == 200
