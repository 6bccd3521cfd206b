"""Image checkpoints by hub id, against a hub on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from engines.manifest import read_manifest
from export.diffusion.hub_files import choose_files
from export.diffusion.pipelines import PIPELINES
from export.errors import CheckpointError
from tests.export.fake_hub import COMMIT, FakeHub

REPO = "acme/tiny-diffusion"
SD15_FILES = {
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
}
UNWANTED = (
    "sd-v1-5.safetensors",
    "sd-v1-5-pruned.ckpt",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/flax_model.msgpack",
    "text_encoder/pytorch_model.bin",
    "text_encoder/model.fp16.safetensors",
    "vae/vae.py",
    "safety_checker/model.safetensors",
    "safety_checker/config.json",
    "feature_extractor/preprocessor_config.json",
    "README.md",
)


@pytest.fixture
def export(tmp_path):
    """`export(endpoint, *options)`: run the command with a fresh cache of its own."""

    def run(endpoint, *options):
        settings = {
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(tmp_path / "hub-cache"),
            "HF_HUB_DISABLE_XET": "1",
        }
        command = [sys.executable, "-m", "export", "--checkpoint-path", REPO, "--no-verify"]
        command += ["--precision", "fp32"]
        return subprocess.run(
            [*command, "--output", str(tmp_path / "engines"), *options],
            env={k: v for k, v in os.environ.items() if k != "HF_TOKEN"} | settings,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


def test_only_what_the_components_need_is_fetched_and_a_second_export_needs_no_hub(
    export, own_pipeline, tmp_path
):
    folder = own_pipeline("sd15")
    for name in UNWANTED:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("not for us")
    with FakeHub(REPO, folder) as hub:
        result = export(hub.endpoint, "--json")
        assert result.returncode == 0, result.stderr
        fetched = hub.downloaded()
        endpoint = hub.endpoint
    tokenizer = {name for name in fetched if name.startswith("tokenizer/")}
    assert fetched - tokenizer == SD15_FILES
    assert {name.rpartition(".")[2] for name in tokenizer} <= {"json", "txt"}
    source = json.loads(result.stdout)["manifest"]["source"]
    assert (source["checkpoint"], source["revision"]) == (REPO, COMMIT)
    assert read_manifest(tmp_path / "engines" / "acme--tiny-diffusion").kind == "image"

    again = export(endpoint, "--name", "again", "--quiet")
    assert (again.returncode, again.stderr) == (0, "")


def choose(*names, pipeline="StableDiffusionPipeline", **index):
    entries = {
        "text_encoder": ["transformers", "CLIPTextModel"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    every = (
        "text_encoder/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    )
    own = {name.partition("/")[0] for name in names}
    others = [name for name in every if name.partition("/")[0] not in own]
    chosen = choose_files(PIPELINES[pipeline], entries | index, {*names, *others}, REPO)
    return {name for name in chosen if name not in others}


def test_half_precision_is_taken_only_where_there_is_nothing_else():
    half, full = (f"unet/diffusion_pytorch_model{v}.safetensors" for v in (".fp16", ""))
    assert choose(half) == {half}
    assert choose(half, full) == {full}


def test_shards_come_with_their_index_and_without_those_of_other_variants():
    stem = "unet/diffusion_pytorch_model"
    index = f"{stem}.safetensors.index.json"
    shards = {f"{stem}-0000{n}-of-00002.safetensors" for n in (1, 2)}
    half = {f"{stem}.fp16-00001-of-00001.safetensors", f"{stem}.fp16.safetensors"}
    assert choose(index, *shards, *half) == {index, *shards}


def test_every_tokenizer_is_fetched_whatever_its_files_are():
    names = {
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
        "tokenizer/special_tokens_map.json",
        "tokenizer/spiece.model",
    }
    assert choose(*names, "tokenizer/tokenizer.py", "tokenizer_2/vocab.json") == names


def test_a_component_that_is_left_out_is_not_asked_for():
    names = [f"{part}/model.safetensors" for part in ("text_encoder", "text_encoder_2")]
    names += ["transformer/diffusion_pytorch_model.safetensors"]
    entries = {
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "transformer": ["diffusers", "SD3Transformer2DModel"],
    }
    chosen = choose(
        *names, pipeline="StableDiffusion3Pipeline", text_encoder_3=[None, None], **entries
    )
    assert chosen == set(names)


def test_pickled_weights_and_none_are_refused_with_the_component():
    with pytest.raises(CheckpointError, match=r"only pickled weights for unet \(unet/diffusion_"):
        choose("unet/diffusion_pytorch_model.bin", "unet/config.json")
    with pytest.raises(CheckpointError, match="has no weights for unet"):
        choose("unet/config.json")
