"""Finding engines and refusing what is not one, in sentences."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import msgspec
import pytest

from engines import store, verified
from engines.errors import EngineCorrupt, EngineIncompatible, EngineNotFound, InvalidManifest
from engines.load import EngineOptions, load_llm_engine
from engines.manifest import (
    ChatSpec,
    FileEntry,
    Manifest,
    Source,
    StateSpec,
    read_manifest,
    write_manifest,
)
from engines.store import EngineFolder, check_files, find_engines, sha256

STATE = StateSpec(input="past", output="present", heads=1, width=8)
CHAT = ChatSpec(
    graph="model.onnx",
    vocab_size=10,
    num_tokens=9,
    max_context=32,
    states=(STATE,),
    eos_token_ids=(1,),
    num_parameters=100,
)


def make_engine(path: Path, **changes: object) -> Path:
    path.mkdir(parents=True)
    (path / "model.onnx").write_bytes(b"graph")
    files = {"model.onnx": FileEntry(size=5, sha256=sha256(path / "model.onnx"))}
    manifest = Manifest(
        kind="chat",
        id=path.name,
        family="qwen3",
        created=1,
        source=Source(checkpoint="x"),
        precision="int8",
        files=files,
        chat=CHAT,
    )
    write_manifest(msgspec.structs.replace(manifest, **changes), path)
    return path


def test_a_manifest_comes_back_as_it_was_written(tmp_path):
    path = make_engine(tmp_path / "a")
    manifest = read_manifest(path)
    write_manifest(manifest, path)
    assert read_manifest(path) == manifest
    assert [entry.name for entry in path.iterdir() if entry.name.startswith(".")] == []


def test_engines_are_found_in_a_tree_an_engine_or_a_folder_of_engines(tmp_path):
    make_engine(tmp_path / "tree" / "deep" / "b")
    make_engine(tmp_path / "tree" / "a")
    make_engine(tmp_path / "tree" / ".partial-c")
    names = [folder.manifest.id for folder in find_engines(tmp_path)]
    assert names == ["a", "b"]
    assert [f.manifest.id for f in find_engines(tmp_path / "tree" / "a")] == ["a"]


def test_a_missing_and_an_empty_folder_are_told_apart(tmp_path):
    with pytest.raises(EngineNotFound, match="does not exist: compile one with `python -m export"):
        find_engines(tmp_path / "nowhere")
    with pytest.raises(EngineNotFound, match="holds no engine"):
        find_engines(tmp_path)


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"format_version": 99}, EngineIncompatible, "format version 99, but this release reads 1"),
        ({"kind": "chat", "chat": None}, InvalidManifest, "has no field `chat`"),
        (
            {"files": {"../model.onnx": FileEntry(size=1, sha256="")}},
            InvalidManifest,
            "leaves the folder",
        ),
        ({"files": {}}, InvalidManifest, "does not list its graph"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(tmp_path, change, error, sentence):
    path = make_engine(tmp_path / "a", **change)
    with pytest.raises(error, match=sentence):
        read_manifest(path)


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"format_version": 1})])
def test_a_manifest_that_cannot_be_read_names_its_path(tmp_path, text):
    (tmp_path / "engine.json").write_text(text)
    with pytest.raises(InvalidManifest, match="cannot be read"):
        read_manifest(tmp_path)


def test_missing_truncated_and_changed_files_are_corrupt(tmp_path):
    folder = EngineFolder(path := make_engine(tmp_path / "a"), read_manifest(path))
    check_files(folder)
    (path / "model.onnx").write_bytes(b"grapH")
    check_files(folder, contents=False)
    with pytest.raises(EngineCorrupt, match="was changed"):
        check_files(folder)
    (path / "model.onnx").write_bytes(b"grap")
    with pytest.raises(EngineCorrupt, match="has 4 bytes, but its manifest says 5"):
        check_files(folder)
    (path / "model.onnx").unlink()
    with pytest.raises(EngineCorrupt, match="is missing"):
        check_files(folder)


def test_what_was_found_whole_is_not_read_again_until_it_changes(tmp_path, monkeypatch):
    folder = EngineFolder(path := make_engine(tmp_path / "a"), read_manifest(path))
    hashed = []
    monkeypatch.setattr(store, "sha256", lambda file: hashed.append(file.name) or sha256(file))
    check_files(folder)
    check_files(folder)
    assert hashed == 2 * list(folder.manifest.files), "a file this young may change unseen"

    monkeypatch.setattr(verified, "_LEAST_AGE_NS", 0)
    check_files(folder)
    hashed.clear()
    check_files(folder)
    assert hashed == []

    graph = path / "model.onnx"
    before = graph.stat()
    graph.write_bytes(b"grapH")
    os.utime(graph, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(EngineCorrupt, match="was changed"):
        check_files(folder)
    graph.write_bytes(b"graph")
    check_files(folder)
    copy = shutil.copytree(path, tmp_path / "copy")
    hashed.clear()
    check_files(EngineFolder(copy, read_manifest(copy)))
    assert hashed == list(folder.manifest.files)


def test_a_record_that_cannot_be_read_or_written_is_done_without(tmp_path, monkeypatch):
    monkeypatch.setattr(verified, "_LEAST_AGE_NS", 0)
    folder = EngineFolder(path := make_engine(tmp_path / "a"), read_manifest(path))
    record = path / ".verified.json"
    record.write_text("[not json")
    check_files(folder)
    assert record.read_bytes() != b"[not json"
    record.unlink()
    record.mkdir()  # as little to be written as in a folder without rights
    check_files(folder)
    assert [entry.name for entry in path.iterdir() if entry.name.startswith(".")] == [record.name]


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    path = make_engine(tmp_path / "a")
    (tmp_path / "secret").write_bytes(b"graph")
    (path / "model.onnx").unlink()
    (path / "model.onnx").symlink_to(tmp_path / "secret")
    with pytest.raises(EngineCorrupt, match="link that leaves"):
        check_files(EngineFolder(path, read_manifest(path)))


def test_an_engine_for_another_target_is_refused_with_what_to_do(tmp_path):
    path = make_engine(tmp_path / "a", target="cuda")
    with pytest.raises(EngineIncompatible, match=r"built for cuda, .* --target ort-cpu"):
        load_llm_engine(EngineFolder(path, read_manifest(path)), EngineOptions(device="cpu"))


def test_a_graph_that_the_runtime_cannot_load_is_one_sentence(tmp_path):
    path = make_engine(tmp_path / "a")
    with pytest.raises(EngineIncompatible, match="cannot load"):
        load_llm_engine(EngineFolder(path, read_manifest(path)), EngineOptions())


def test_a_context_beyond_the_engine_s_is_refused(tmp_path):
    path = make_engine(tmp_path / "a")
    with pytest.raises(EngineIncompatible, match="max_context is 33, but"):
        load_llm_engine(EngineFolder(path, read_manifest(path)), EngineOptions(max_context=33))
