"""What is said of an engine that this processor is slow with."""

from __future__ import annotations

import logging

import msgspec
import pytest

from engines.store import EngineFolder, find_engines
from server import loading
from server.config import ServerConfig
from server.loading import adds_up_int8_slowly, load_models


@pytest.fixture
def has_vnni(monkeypatch):
    def decide(answer):
        monkeypatch.setattr(loading, "has_fast_int8", lambda: answer)

    return decide


def test_only_matrices_in_8_bits_on_a_cpu_without_vnni_are_slow(demo_engine_dir, has_vnni):
    (folder,) = find_engines(demo_engine_dir)
    manifest = msgspec.structs.replace(folder.manifest, reduce_range=False)
    has_vnni(True)
    assert not adds_up_int8_slowly(manifest)
    has_vnni(False)
    assert adds_up_int8_slowly(manifest)
    for changes in (
        {"reduce_range": True},
        {"target": "cuda"},
        {"node_precision": {"embedding": "int8", "attention": "int4", "head": "fp32"}},
    ):
        assert not adds_up_int8_slowly(msgspec.structs.replace(manifest, **changes))


@pytest.mark.parametrize("is_slow", [False, True])
def test_an_engine_that_is_slow_here_is_named_in_the_log(
    demo_engine_dir, has_vnni, caplog, is_slow
):
    caplog.set_level(logging.INFO)
    (folder,) = find_engines(demo_engine_dir)
    manifest = msgspec.structs.replace(folder.manifest, reduce_range=not is_slow)
    has_vnni(False)
    models = load_models([EngineFolder(folder.path, manifest)], ServerConfig(num_threads=1))
    for model in models.models:
        model.worker.close()
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert [text.startswith("demo-chat has weights in 8 bits") for text in warnings] == (
        [True] if is_slow else []
    )
