"""Exports by hub id, against a hub on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from export.hub import is_hub_id
from tests.export.fake_hub import COMMIT, FakeHub

REPO = "acme/tiny-qwen"


@pytest.fixture
def export(tmp_path):
    """`export(hub, *options)`: run the command with a fresh cache of its own."""

    def run(hub, *options, **environment):
        if "--checkpoint-path" not in options:
            options = (*options, "--checkpoint-path", REPO)
        command = [sys.executable, "-m", "export", "--no-verify"]
        settings = {
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(tmp_path / "hub-cache"),
            "HF_HUB_DISABLE_XET": "1",
        }
        return subprocess.run(
            [*command, "--output", str(tmp_path / "engines"), *options],
            env={k: v for k, v in os.environ.items() if k != "HF_TOKEN"} | settings | environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def test_a_hub_id_becomes_the_engine_id_and_only_needed_files_are_fetched(export, own_checkpoint):
    folder = own_checkpoint("qwen3")
    for unwanted in ("pytorch_model.bin", "modeling_qwen3.py", "README.md"):
        (folder / unwanted).write_text("not for us")
    with FakeHub(REPO, folder) as hub:
        result = export(hub, "--json")
        assert result.returncode == 0, result.stderr
        summary = json.loads(result.stdout)
        assert summary["manifest"]["id"] == REPO
        assert summary["manifest"]["source"]["checkpoint"] == REPO
        assert summary["manifest"]["source"]["revision"] == COMMIT
        assert summary["path"].endswith("acme--tiny-qwen")
        assert hub.downloaded() == {
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
            "chat_template.jinja",
        }


def test_shards_and_their_index_are_fetched(export, checkpoint):
    with FakeHub(REPO, checkpoint("qwen2", max_shard_size="100KB")) as hub:
        assert export(hub).returncode == 0
        assert "model.safetensors.index.json" in hub.downloaded()
        assert len([name for name in hub.downloaded() if name.endswith(".safetensors")]) > 2


def test_a_download_that_breaks_off_is_resumed_where_it_stopped(export, checkpoint):
    large = checkpoint("qwen2.5", intermediate_size=24_000)  # the client saves 10 MiB at a time
    with FakeHub(REPO, large) as hub:
        hub.cut_after = 25 << 20
        result = export(hub)
        assert result.returncode == 0, result.stderr
        ranges = [r for verb, path, r in hub.requests if verb == "GET" and "model.safe" in path]
        assert len(ranges) == 2
        assert ranges[0] is None
        assert int(ranges[1].removeprefix("bytes=").rstrip("-")) >= 10 << 20


def test_a_revision_is_asked_for_by_name(export, checkpoint):
    with FakeHub(REPO, checkpoint("qwen2")) as hub:
        assert export(hub, "--revision", "v1").returncode == 0
        assert any(path.endswith("/revision/v1") for _, path, _ in hub.requests)


def test_the_token_comes_from_the_environment(export, checkpoint):
    with FakeHub(REPO, checkpoint("qwen2")) as hub:
        hub.token = "hf_secret"
        assert export(hub, HF_TOKEN="hf_secret").returncode == 0


@pytest.mark.parametrize(
    ("options", "environment", "sentence"),
    [
        (["--revision", "nope"], {}, "acme/tiny-qwen has no revision nope on the hub"),
        (["--checkpoint-path", "acme/absent"], {}, "no folder acme/absent, and the hub has no"),
        ([], {"HF_ENDPOINT": "http://127.0.0.1:9"}, "it could not be downloaded"),
        ([], {"HF_TOKEN": "hf_wrong"}, "a private one needs HF_TOKEN"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(export, checkpoint, options, environment, sentence):
    with FakeHub(REPO, checkpoint("qwen2")) as hub:
        hub.token = "hf_secret" if environment.get("HF_TOKEN") else None
        result = export(hub, "--quiet", *options, **environment)
    assert result.returncode == 1
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_without_huggingface_hub_one_sentence_says_what_to_install(tmp_path):
    program = (
        "import sys, runpy; sys.modules['huggingface_hub'] = None; "
        "sys.argv = ['export', '--checkpoint-path', 'acme/tiny-qwen', '--quiet']; "
        "runpy.run_module('export', run_name='__main__')"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 1
    assert "pip install 'enginery[export]'" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Qwen/Qwen3-0.6B", True), ("a/b/c", False), ("../x", False), ("/x/y", False), ("x", False)],
)
def test_what_a_hub_id_looks_like(text, expected):
    assert is_hub_id(text) is expected


def test_a_pipeline_that_is_not_supported_costs_no_download(export, tmp_path):
    folder = tmp_path / "image-checkpoint"
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text('{"_class_name": "KandinskyPipeline"}')
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"large")
    with FakeHub(REPO, folder) as hub:
        result = export(hub)
        assert hub.downloaded() == {"model_index.json"}
    assert result.returncode == 1
    assert "the checkpoint's pipeline is KandinskyPipeline, but it must be one of" in result.stderr
    assert not (tmp_path / "engines").exists()
