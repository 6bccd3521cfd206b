"""Settings: sizes, keys, names, and what is refused."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.config import ServerConfig
from server.sizes import parse_size, show_size


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("1048576", 2**20),
        ("512MiB", 2**29),
        ("4GiB", 2**32),
        ("4gib", 2**32),
        ("2 GB", 2 * 10**9),
        ("1.5GiB", 3 * 2**29),
        ("10K", 10_000),
        ("64Ki", 2**16),
        ("7B", 7),
    ],
)
def test_sizes_are_read_in_the_usual_units(text, num_bytes):
    assert parse_size(text) == num_bytes


@pytest.mark.parametrize("text", ["", "GiB", "-1", "4 apples", "4TiBs", "1e9", "4GiB4"])
def test_what_is_no_size_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match="512MiB"):
        parse_size(text)


@given(st.integers(0, 2**45))
def test_a_size_that_is_shown_reads_as_the_same(num_bytes):
    assert parse_size(show_size(num_bytes)) == num_bytes


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("port", -1),
        ("port", 65536),
        ("max_num_seqs", 0),
        ("kv_cache_memory", 0),
        ("max_context", 1),
        ("num_threads", 0),
        ("prefill_chunk", 1),
        ("prefill_chunk_streaming", 1),
        ("max_draft_tokens", 33),
        ("max_queue_size", -1),
        ("max_body_size", 0),
        ("request_timeout", 0.0),
        ("request_timeout", float("nan")),
        ("drain_timeout", -1.0),
        ("api_auth", "user"),
        ("api_auth", ":password"),
        ("api_key", ("a", " ")),
        ("cors_origin", ("example.org",)),
        ("cors_origin", ("https://example.org/page",)),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_name(setting, value):
    with pytest.raises(ValueError, match=setting):
        ServerConfig(**{setting: value})


def test_lists_can_be_separated_by_commas():
    config = ServerConfig(
        served_model_name=("a, b=c", "d"), cors_origin=("https://a.org/,http://b.org:1",)
    )
    assert config.served_names == ("a", "b=c", "d")
    assert config.cors_origins == ("https://a.org", "http://b.org:1")


def test_keys_come_from_the_settings_and_from_files(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("# for the team\nk3\n\n  k4  \n")
    second.write_text("k1\nk5")
    config = ServerConfig(api_key=("k1,k2", f"@{first}"), api_key_file=second)
    assert sorted(config.api_keys()) == ["k1", "k2", "k3", "k4", "k5"]
    assert ServerConfig().api_keys() == ()


def test_a_file_without_keys_or_that_cannot_be_read_is_refused_by_name(tmp_path):
    empty = tmp_path / "empty"
    empty.write_text("# nothing\n")
    with pytest.raises(ValueError, match="holds no API key"):
        ServerConfig(api_key_file=empty).api_keys()
    with pytest.raises(ValueError, match="nowhere"):
        ServerConfig(api_key=("@nowhere",)).api_keys()
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="binary"):
        ServerConfig(api_key_file=tmp_path / "binary").api_keys()


def test_secrets_are_not_shown():
    shown = repr(ServerConfig(api_key=("sk-secret",), api_auth="user:sk-secret"))
    assert "sk-secret" not in shown


def test_settings_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ServerConfig().port = 1
