"""The folder of an image engine: what the export writes and refuses, and what loading refuses."""

from __future__ import annotations

import shutil
import subprocess
import sys

import msgspec
import pytest

from engines.errors import EngineCorrupt, EngineIncompatible, InvalidManifest
from engines.load import EngineOptions, load_llm_engine
from engines.load_image import ImageEngineOptions, load_image_engine
from engines.manifest import read_manifest, write_manifest
from engines.store import find_engines
from export.diffusion.checkpoint import open_diffusion_checkpoint
from export.diffusion.engine import plan_image_engine
from export.errors import CheckpointError
from export.report import Summary
from tests.checkpoints import edit_json
from tests.export.diffusion.pictures import open_engine

DEADLINE = 240  # seconds, for what takes a few


def run(module, *options):
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, options)],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )


@pytest.fixture
def own_engine(image_engine, tmp_path):
    """A copy that a test may damage."""

    def make(name="sd15"):
        return shutil.copytree(image_engine(name), tmp_path / "engines" / name)

    return make


def spec_of(checkpoint):
    return plan_image_engine(open_diffusion_checkpoint(checkpoint, "tiny"), "tiny").spec


def test_the_command_makes_an_engine_and_says_what_it_is(pipeline, tmp_path):
    options = ("--output", tmp_path, "--no-verify", "--json")
    done = run("export", "--checkpoint-path", pipeline("sdxl"), *options)
    assert done.returncode == 0, done.stderr
    summary = msgspec.json.decode(done.stdout, type=Summary)
    (folder,) = find_engines(tmp_path)
    manifest = folder.manifest
    assert summary.manifest == manifest
    assert (manifest.kind, manifest.family) == ("image", "stable-diffusion-xl")
    assert (manifest.id, manifest.precision) == ("tiny-sdxl", "fp32")
    assert manifest.image_verification is None
    assert manifest.verification_skipped == "the export was asked not to verify"
    names = {path.name for path in folder.path.iterdir()}
    assert names == {*manifest.files, "engine.json"}
    assert set(manifest.image.files) < names
    load_image_engine(folder, ImageEngineOptions(num_threads=1)).close()


def test_the_table_says_precision_and_sizes(pipeline, tmp_path):
    options = ("--output", tmp_path, "--no-verify")
    done = run("export", "--checkpoint-path", pipeline("sd15"), *options)
    assert done.returncode == 0, done.stderr
    assert "fp32 (text_encoder fp32, denoiser fp32, vae fp32)" in done.stdout
    assert "32 x 32; others in multiples of 2, up to 4,096 pixels" in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--precision", "int4"),
            "--precision is int4, but image checkpoints are compiled for ort-cpu in int8 or fp32",
        ),
        (
            ("--precision", "fp32", "--calibration-prompts", "prompts.txt"),
            "--calibration-prompts is for int8, but --precision is fp32",
        ),
        (("--calibration-prompts", "no-file.txt"), "--calibration-prompts no-file.txt cannot be"),
        (("--max-context", "64"), "--max-context is for language models, but"),
        (("--optimize", "memory"), "--optimize is for language models, but"),
        (("--override", "head=fp32"), "--override is for language models, but"),
        (("--int4-block-size", "32"), "--int4-block-size is for language models, but"),
    ],
)
def test_options_that_would_have_no_effect_are_refused(pipeline, tmp_path, options, message):
    output = tmp_path / "out"
    done = run("export", "--checkpoint-path", pipeline("sd15"), "--output", output, *options)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1
    assert not output.exists()


def test_a_checkpoint_that_fails_midway_leaves_nothing_behind(own_pipeline, tmp_path):
    checkpoint, output = own_pipeline("sd15"), tmp_path / "out"
    (checkpoint / "tokenizer" / "tokenizer.json").write_text("{")
    done = run("export", "--checkpoint-path", checkpoint, "--output", output)
    assert done.returncode == 1
    assert "holds no tokenizer that can be read" in done.stderr
    assert not output.exists()


def test_the_spec_says_what_the_pipeline_is(pipeline):
    spec = spec_of(pipeline("sdxl"))
    assert [encoder.tokenizer for encoder in spec.text_encoders] == [
        "tokenizer.json",
        "tokenizer_2.json",
    ]
    assert {encoder.max_length for encoder in spec.text_encoders} == {77}
    assert (spec.takes_sizes, spec.zeros_without_negative) == (True, True)
    assert (spec.default_height, spec.default_width) == (32, 32)
    assert (spec.default_num_inference_steps, spec.default_guidance_scale) == (50, 5.0)
    assert (spec.latent_channels, spec.latent_scale, spec.size_multiple) == (4, 2, 2)
    spec = spec_of(pipeline("sd15"))
    assert (spec.takes_sizes, spec.zeros_without_negative) == (False, False)
    assert spec.default_guidance_scale == 7.5


@pytest.mark.parametrize(
    "scheduler",
    [
        {"_class_name": "LCMScheduler"},
        {"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"},
    ],
)
def test_a_model_of_few_steps_is_known_by_its_scheduler(own_pipeline, scheduler):
    checkpoint = own_pipeline("sdxl")
    edit_json(checkpoint / "scheduler" / "scheduler_config.json", **scheduler)
    spec = spec_of(checkpoint)
    assert (spec.default_num_inference_steps, spec.default_guidance_scale) == (4, 1.0)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "scheduler/scheduler_config.json",
            {"_class_name": "HeunDiscreteScheduler"},
            "the scheduler of the checkpoint is HeunDiscreteScheduler, but it must be one of",
        ),
        (
            "unet/config.json",
            {"sample_size": "big"},
            "unet/config.json has sample_size = 'big', but it must be a whole number",
        ),
    ],
)
def test_a_setting_that_cannot_be_served_is_refused_by_name(own_pipeline, file, change, message):
    checkpoint = own_pipeline("sd15")
    edit_json(checkpoint / file, **change)
    with pytest.raises(CheckpointError, match=message):
        spec_of(checkpoint)


def test_a_changed_graph_is_refused(own_engine):
    folder = own_engine()
    data = bytearray((folder / "unet.onnx.data").read_bytes())
    data[-1] ^= 1
    (folder / "unet.onnx.data").write_bytes(data)
    with pytest.raises(EngineCorrupt, match=r"unet\.onnx\.data was changed after its export"):
        open_engine(folder)


def test_an_engine_for_another_target_is_refused(own_engine):
    folder = own_engine()
    write_manifest(msgspec.structs.replace(read_manifest(folder), target="tensorrt"), folder)
    (found,) = find_engines(folder)
    with pytest.raises(EngineIncompatible, match="was built for tensorrt, which runs on"):
        load_image_engine(found, ImageEngineOptions(device="cpu"))


def test_a_manifest_that_contradicts_itself_is_refused(own_engine):
    folder = own_engine()
    manifest = read_manifest(folder)
    write_manifest(msgspec.structs.replace(manifest, image=None), folder)
    with pytest.raises(InvalidManifest, match="is of kind image but has no field `image`"):
        read_manifest(folder)
    files = {name: entry for name, entry in manifest.files.items() if name != "vae_decoder.onnx"}
    write_manifest(msgspec.structs.replace(manifest, files=files), folder)
    with pytest.raises(InvalidManifest, match=r"does not list 'vae_decoder\.onnx' of its image"):
        read_manifest(folder)


def test_each_kind_of_engine_has_its_own_way_to_be_opened(image_engine, tiny_engine_dir):
    (images,), (chat,) = find_engines(image_engine("sd15")), find_engines(tiny_engine_dir)
    with pytest.raises(EngineIncompatible, match="kind chat, not image"):
        load_image_engine(chat, ImageEngineOptions())
    with pytest.raises(EngineIncompatible, match="kind image, not chat"):
        load_llm_engine(images, EngineOptions())
