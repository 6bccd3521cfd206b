"""`/v1/models` and the names that requests may use."""

from __future__ import annotations

import dataclasses
import shutil
import time

import msgspec
import pytest

from engines.errors import EngineError
from engines.manifest import read_manifest, write_manifest
from engines.store import find_engines
from server.config import ServerConfig
from server.errors import ApiError, ModelNotFound
from server.loading import load_models
from server.names import served_names
from server.opening import engine_options
from server.registry import ChatModel, ImageModel, ModelRegistry
from tests.server.apps import client, tiny_engine, tiny_model
from tests.server.images.apps import image_model

KEYS = {"id", "object", "created", "owned_by", "root", "parent", "permission"}


def folders(*ids):
    return [tiny_model(id=id).folder for id in ids]


def test_the_list_has_every_name_and_exactly_openais_fields():
    first = dataclasses.replace(tiny_model(id="gpt-3.5-turbo"), aliases=("qwen",))
    before = int(time.time())
    result = client(first, tiny_model(id="Qwen/Qwen3-0.6B"), owned_by="me").simulate_get(
        "/v1/models"
    )
    assert result.json.keys() == {"object", "data"}
    assert result.json["object"] == "list"
    entries = result.json["data"]
    assert [entry["id"] for entry in entries] == ["gpt-3.5-turbo", "qwen", "Qwen/Qwen3-0.6B"]
    for entry in entries:
        assert entry.keys() == KEYS
        assert (entry["object"], entry["owned_by"]) == ("model", "me")
        assert before <= entry["created"] <= time.time()
        assert entry["root"] is entry["parent"] is entry["permission"] is None


def test_one_model_tells_its_limits_and_what_it_was_compiled_to():
    model = tiny_model(tiny_engine(max_context=99))
    found = client(model).simulate_get("/v1/models/tiny").json
    assert found.keys() == KEYS | {"max_model_len", "kind", "family", "precision", "device"}
    assert (found["id"], found["max_model_len"], found["kind"]) == ("tiny", 99, "chat")
    assert (found["family"], found["precision"], found["device"]) == ("qwen3", "fp32", "cpu")
    assert found["owned_by"] == "enginery"


@pytest.mark.parametrize("path", ["Qwen/Qwen3-0.6B", "Qwen%2FQwen3-0.6B", "Qwen/Qwen3-0.6B/"])
def test_an_id_may_hold_slashes(path):
    result = client(tiny_model(id="Qwen/Qwen3-0.6B")).simulate_get(f"/v1/models/{path}")
    assert (result.status_code, result.json["id"]) == (200, "Qwen/Qwen3-0.6B")


@pytest.mark.parametrize("name", ["nobody", "tiny/x", "TINY", "a/b/c"])
def test_an_unknown_model_is_a_404_that_names_those_that_there_are(name):
    result = client().simulate_get(f"/v1/models/{name}")
    assert result.status_code == 404
    error = result.json["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert error["type"] == "invalid_request_error"
    assert "'tiny'" in error["message"]


@pytest.mark.parametrize("route", ["chat/completions", "completions"])
def test_requests_for_an_unknown_model_are_the_same_404(route):
    body = {"model": "nobody", "messages": [{"role": "user", "content": "Hi"}], "prompt": "Hi"}
    result = client().simulate_post(f"/v1/{route}", json=body)
    assert (result.status_code, result.json["error"]["code"]) == (404, "model_not_found")


def test_a_request_finds_the_model_of_its_kind():
    chat, image = tiny_model(id="a"), image_model(id="b")
    registry = ModelRegistry([chat, image])
    assert registry.find("a", ChatModel) is chat
    assert registry.find("b", ImageModel) is image
    with pytest.raises(ModelNotFound, match=r"of kind image .* of that kind this server has 'a'"):
        registry.find("b", ChatModel)
    with pytest.raises(ModelNotFound, match="of kind chat and does not answer image requests"):
        registry.find("a", ImageModel)


def test_a_request_without_a_name_finds_the_only_model_of_its_kind():
    chat, first, second = tiny_model(id="a"), image_model(id="b"), image_model(id="c")
    assert ModelRegistry([chat, first]).find_only(ImageModel) is first
    with pytest.raises(ModelNotFound, match="no model of kind image"):
        ModelRegistry([chat]).find_only(ImageModel)
    with pytest.raises(ApiError, match=r"model is missing, .* 'b', 'c'"):
        ModelRegistry([chat, first, second]).find_only(ImageModel)


def test_any_name_means_the_only_engine_of_the_kind_if_that_is_allowed():
    chat, image = tiny_model(id="a"), image_model(id="b")
    registry = ModelRegistry([chat, image], accept_any_model=True)
    for name in ("gpt-4o", "", "b"):
        assert registry.find(name, ChatModel) is chat
    assert registry.find("dall-e-3", ImageModel) is image
    several = ModelRegistry([chat, tiny_model(id="c")], accept_any_model=True)
    assert several.find("c", ChatModel).id == "c"
    for model_type in (ChatModel, ImageModel):
        with pytest.raises(ModelNotFound):
            several.find("gpt-4o", model_type)


def test_a_listed_name_is_not_any_name():
    registry = ModelRegistry([tiny_model()], accept_any_model=True)
    with pytest.raises(ModelNotFound):
        registry.get("gpt-4o")


def test_two_models_cannot_share_a_name_and_none_is_too_few():
    with pytest.raises(ValueError, match="both named 'tiny'"):
        ModelRegistry([tiny_model(), tiny_model()])
    with pytest.raises(ValueError, match="at least one"):
        ModelRegistry([])


@pytest.mark.parametrize(
    ("ids", "given", "expected"),
    [
        (["a"], [], [("a",)]),
        (["a/x", "b"], [], [("a/x",), ("b",)]),
        (["a"], ["gpt"], [("gpt",)]),
        (["a"], ["gpt", "a", "gpt"], [("gpt", "a")]),
        (["a", "b"], ["gpt=b", "x/y=b"], [("a",), ("gpt", "x/y")]),
        (["a", "b"], ["a=b", "b=a"], [("b",), ("a",)]),
    ],
)
def test_served_names_replace_ids(ids, given, expected):
    assert served_names(folders(*ids), given) == expected


@pytest.mark.parametrize(
    ("ids", "given", "sentence"),
    [
        (["a", "a"], [], "both named 'a'"),
        (["a", "b"], ["gpt"], "write gpt=ENGINE"),
        (["a"], ["gpt=b"], "names the engine 'b', but there is only a"),
        (["a", "b"], ["gpt=a", "gpt=b"], "both named 'gpt'"),
        (["a", "b"], ["b=a"], "both named 'b'"),
    ],
)
def test_names_that_are_not_clear_are_refused_before_anything_is_loaded(ids, given, sentence):
    with pytest.raises(EngineError, match=sentence):
        served_names(folders(*ids), given)


def test_engines_share_the_memory_that_is_free_unless_told():
    alone = engine_options(ServerConfig(), folders("a"))
    two = engine_options(ServerConfig(), folders("a", "b"))
    four = engine_options(ServerConfig(), folders(*"abcd"))
    beside_images = engine_options(ServerConfig(), [*folders("a"), image_model(id="b").folder])
    assert alone.kv_cache_memory is None
    assert beside_images.kv_cache_memory > two.kv_cache_memory > four.kv_cache_memory > 0
    config = ServerConfig(kv_cache_memory=2**30, max_num_seqs=3, num_threads=2)
    told = engine_options(config, folders(*"abcd"))
    assert (told.kv_cache_memory, told.max_num_seqs, told.num_threads) == (2**30, 3, 2)


def test_several_engines_load_side_by_side(tiny_engine_dir, tmp_path):
    for id in ("first", "second"):
        shutil.copytree(tiny_engine_dir / "tiny", tmp_path / id)
        manifest = read_manifest(tmp_path / id)
        write_manifest(msgspec.structs.replace(manifest, id=id), tmp_path / id)
    config = ServerConfig(served_model_name=("gpt=second",), num_threads=1, max_num_seqs=2)
    models = load_models(find_engines(tmp_path), config)
    assert [name for name, _ in models.names] == ["first", "gpt"]
    assert models.find("gpt", ChatModel).worker.max_context == 2048
    for model in models.models:
        model.worker.close()
