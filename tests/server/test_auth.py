"""Who may call: keys, passwords, and what a refusal looks like."""

from __future__ import annotations

import base64

import pytest

from server.app import create_app
from server.config import ServerConfig
from server.registry import ModelRegistry
from tests.server.apps import CHAT, CheckedClient, client, tiny_model

KEYS = ["sk-one", "sk-two", "schlüssel"]


def basic(user_password: str) -> str:
    return f"Basic {base64.b64encode(user_password.encode()).decode()}"


def get(app, authorization=None, path="/v1/models"):
    headers = {} if authorization is None else {"Authorization": authorization}
    return app.simulate_get(path, headers=headers)


def assert_refused(result, challenge):
    assert result.status_code == 401
    assert result.headers["www-authenticate"] == challenge
    error = result.json["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")
    assert error["param"] is None
    assert not any(key in result.text for key in KEYS)


BEARER = 'Bearer realm="enginery"'
BASIC = 'Basic realm="enginery", charset="UTF-8"'


def test_keys_in_the_settings_count_without_further_ado(tmp_path):
    (tmp_path / "keys").write_text("sk-two\n")
    config = ServerConfig(api_key=("sk-one", f"@{tmp_path / 'keys'}"))
    app = CheckedClient(create_app(ModelRegistry([tiny_model()]), config))
    assert_refused(get(app), BEARER)
    for key in ("sk-one", "sk-two"):
        assert get(app, f"Bearer {key}").status_code == 200


def test_a_missing_header_is_refused():
    assert_refused(get(client(api_keys=KEYS)), BEARER)


def test_a_wrong_key_is_refused():
    for wrong in ("sk-three", "sk-on", "sk-onex", "SK-ONE", "sk-one sk-two", "sk-one,"):
        assert_refused(get(client(api_keys=KEYS), f"Bearer {wrong}"), BEARER)


def test_a_bare_token_is_refused():
    assert_refused(get(client(api_keys=KEYS), "sk-one"), BEARER)


def test_another_scheme_is_refused():
    for header in ("Token sk-one", "Digest sk-one", basic("sk-one:"), basic("u:sk-one")):
        assert_refused(get(client(api_keys=KEYS), header), BEARER)


def test_an_empty_token_is_refused():
    for header in ("Bearer", "Bearer ", "Bearer  ", "", " "):
        assert_refused(get(client(api_keys=KEYS), header), BEARER)


def test_any_of_the_keys_opens_and_the_scheme_may_have_any_case():
    app = client(api_keys=KEYS)
    for header in ("Bearer sk-one", "bearer sk-two", "BEARER  sk-one"):
        assert get(app, header).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"),
        ("GET", "/v1/models/tiny"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("GET", "/metrics"),
        ("GET", "/version"),
        ("GET", "/openapi.json"),
        ("GET", "/nope"),
        ("GET", "/health/x"),
        ("DELETE", "/v1/models"),
    ],
)
def test_all_routes_need_a_key(method, path):
    assert_refused(client(api_keys=KEYS).simulate_request(method, path, json=CHAT), BEARER)


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_probes_need_no_key(path):
    assert get(client(api_keys=KEYS), path=path).status_code == 200
    assert get(client(api_keys=KEYS), "Bearer wrong", path).status_code == 200


@pytest.mark.parametrize("header", [None, "", "Bearer x", "sk", "Basic !", "Digest a=b"])
def test_without_keys_any_header_is_accepted(header):
    assert get(client(), header).status_code == 200


def test_a_user_and_password_open_as_basic_authentication():
    app = client(api_auth="user:pass:word")
    assert get(app, basic("user:pass:word")).status_code == 200
    for header in (None, basic("user:pass"), basic("user"), "Basic !!", "Bearer user:pass:word"):
        assert_refused(get(app, header), BASIC)


def test_keys_and_a_password_can_both_be_configured():
    app = client(api_keys=KEYS, api_auth="user:pass")
    for header in ("Bearer sk-one", basic("user:pass")):
        assert get(app, header).status_code == 200
    for header in (None, "Bearer user:pass", basic("sk-one:sk-one"), "Basic sk-one"):
        assert_refused(get(app, header), f"{BEARER}, {BASIC}")
