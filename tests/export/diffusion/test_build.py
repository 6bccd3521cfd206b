"""Which precision an image engine gets: asked for, possible, and good enough."""

from __future__ import annotations

import signal
import subprocess
from itertools import pairwise

import onnx
import pytest

from engines.image.denoising import Denoising
from engines.image.schedulers.schedule import NoiseSchedule
from engines.reports import QuantizationReport
from export.diffusion import build
from export.diffusion.build import ImageBuildOptions, build_image_engine
from export.diffusion.checkpoint import open_diffusion_checkpoint
from export.diffusion.engine import plan_image_engine, write_settings
from export.diffusion.quantization.check import describe_failure, passes
from export.diffusion.quantization.drawing import calibration_requests
from export.diffusion.quantization.prompts import (
    CALIBRATION_PROMPTS,
    CHECK_PROMPTS,
    read_calibration_prompts,
)
from export.errors import ExportError, VerificationFailed
from export.report import QuietProgress
from tests.export.test_processes import command, export, names, wait_until

PROMPTS = ("red circle",)


@pytest.fixture
def build_tiny(pipeline, tmp_path):
    """`build_tiny(precision=None)`: the manifest and the folder of an engine of random weights."""

    def make(name="sd15", **options):
        folder = tmp_path / "engine"
        folder.mkdir()
        plan = plan_image_engine(open_diffusion_checkpoint(pipeline(name), name), name)
        options = {"precision": None, "calibration_prompts": PROMPTS, **options}
        return build_image_engine(
            plan, ImageBuildOptions(**options), folder, QuietProgress()
        ), folder

    return make


def op_types(folder):
    graph = onnx.load(folder / "unet.onnx", load_external_data=False).graph
    return {node.op_type for node in graph.node}


@pytest.fixture
def too_far(monkeypatch):
    """Pictures of random weights come near or far by chance: a bar that none of them reaches."""
    monkeypatch.setattr("export.diffusion.quantization.check.MIN_PSNR", 101.0)


@pytest.fixture
def near_enough(monkeypatch):
    monkeypatch.setattr("export.diffusion.quantization.check.MIN_PSNR", 1.0)


@pytest.mark.usefixtures("near_enough")
def test_without_a_precision_int8_is_taken_where_it_passes(build_tiny):
    manifest, folder = build_tiny()
    assert manifest.precision == "int8"
    assert manifest.precision_reason is None
    assert manifest.quantization.num_calibration_prompts == 1
    assert "QLinearConv" in op_types(folder)
    assert {path.name for path in folder.iterdir()} == set(manifest.files)


@pytest.mark.usefixtures("too_far")
def test_without_a_precision_fp32_is_taken_where_int8_does_not_pass(build_tiny):
    manifest, folder = build_tiny()
    assert manifest.precision == "fp32"
    assert "but int8 has to reach 101 dB" in manifest.precision_reason
    assert f"{manifest.quantization.psnr_mean:.1f} dB" in manifest.precision_reason
    assert "QLinearConv" not in op_types(folder)
    assert {path.name for path in folder.iterdir()} == set(manifest.files)


@pytest.mark.usefixtures("too_far")
def test_int8_that_was_asked_for_is_refused_where_it_does_not_pass(build_tiny):
    with pytest.raises(VerificationFailed, match="keep it by --force"):
        build_tiny(precision="int8")


@pytest.mark.usefixtures("too_far")
def test_force_keeps_int8_with_its_figures(build_tiny):
    manifest, _ = build_tiny(precision="int8", force=True)
    assert manifest.precision == "int8"
    assert manifest.quantization.psnr_mean < 101


def test_without_verification_int8_has_to_be_asked_for(pipeline, tmp_path):
    result = export(pipeline("sd15"), tmp_path, "--no-verify")
    assert result.returncode == 0, result.stderr
    assert "nothing says whether int8 is good enough" in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    ("obstacle", "sentence"),
    [
        (("find_spec", lambda name: None), "ONNX Runtime, which measures the activations, is not"),
        (("available_memory", lambda: 1000), "takes about 0.0 GB of memory, and 0.0 GB are"),
    ],
)
def test_what_keeps_int8_from_being_measured_is_said(build_tiny, monkeypatch, obstacle, sentence):
    monkeypatch.setattr(build, *obstacle)
    with pytest.raises(ExportError, match="leave it out for fp32") as refused:
        build_tiny(precision="int8")
    assert sentence in str(refused.value)


@pytest.mark.parametrize(("mean", "good"), [(30.0, True), (29.9, False)])
def test_the_mean_of_the_pictures_is_held_against_30_db(mean, good):
    report = QuantizationReport(
        psnr_mean=mean,
        psnr_min=20.0,
        num_pictures=4,
        num_inference_steps=10,
        height=64,
        width=64,
        num_calibration_prompts=8,
    )
    assert passes(report) is good
    assert "has to reach 30 dB" in describe_failure(report)


def test_calibration_goes_through_all_times_and_other_prompts_than_the_check(pipeline, tmp_path):
    plan = plan_image_engine(open_diffusion_checkpoint(pipeline("sd15"), "tiny"), "tiny")
    write_settings(plan, tmp_path)
    schedule = NoiseSchedule.read(tmp_path / plan.spec.scheduler)
    requests = calibration_requests(tmp_path, plan.spec, CALIBRATION_PROMPTS)
    times = {
        float(time_step)
        for request in requests
        for time_step in Denoising(request, plan.spec, schedule)._stepper.timesteps
    }
    assert len({request.prompt_token_ids for request in requests}) == len(CALIBRATION_PROMPTS)
    assert not set(CALIBRATION_PROMPTS) & set(CHECK_PROMPTS)
    assert len(times) > 25
    ordered = sorted(times)
    assert ordered[0] < 20
    assert ordered[-1] > 850
    assert max(later - earlier for earlier, later in pairwise(ordered)) < 100


def test_a_file_of_prompts_replaces_those_built_in(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("a cat\n\n  two dogs \n")
    assert read_calibration_prompts(file) == ("a cat", "two dogs")
    file.write_text(" \n")
    with pytest.raises(ExportError, match="holds no prompt: write one a line"):
        read_calibration_prompts(file)
    with pytest.raises(ExportError, match=r"cannot be read: "):
        read_calibration_prompts(tmp_path / "missing.txt")


def test_an_export_killed_while_it_calibrates_is_cleared_away_by_the_next(pipeline, tmp_path):
    process = subprocess.Popen(
        command(pipeline("sd15"), tmp_path, "--precision", "int8", "--quiet")
    )
    try:
        scratch = tmp_path / ".tiny-sd15.partial" / ".calibration"
        wait_until(lambda: (scratch / "unet.onnx").exists())
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert names(tmp_path) == [".tiny-sd15.partial"]
    options = ("--precision", "fp32", "--no-verify", "--quiet")
    assert export(pipeline("sd15"), tmp_path, *options).returncode == 0
    assert names(tmp_path) == ["tiny-sd15"]


def test_options_of_image_models_are_refused_for_language_models(checkpoint, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\n")
    result = export(checkpoint("qwen3"), tmp_path / "out", "--calibration-prompts", prompts)
    assert result.returncode == 1
    assert "--calibration-prompts is for image models, --smooth and" in result.stderr
