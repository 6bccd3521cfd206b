"""The verification of image engines: its arithmetic, its references, its bars."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from engines.image.denoising import Denoising
from engines.image.runner import EncodedText
from engines.image.schedulers.schedule import NoiseSchedule
from engines.manifest import read_manifest
from engines.reports import ComponentVerification, ImageVerification
from export import command
from export.config import ExportConfig
from export.diffusion.checkpoint import open_diffusion_checkpoint
from export.diffusion.verification import verify as verify_module
from export.diffusion.verification.agreement import EQUAL_PSNR, ErrorMeter, PictureMeter, psnr
from export.diffusion.verification.drawing import PROMPTS, sizes
from export.diffusion.verification.training import Probe, red_circle
from export.diffusion.verification.verify import missing_packages, needed_memory, reason_to_skip
from export.errors import VerificationFailed
from export.memory import available_memory
from export.report import QuietProgress, Summary, print_table
from export.verification import check_bars, run_verification
from export.verify import VerificationResult, VerifyConfig, verify
from tests.export.diffusion.pictures import make_request
from tests.export.diffusion.tiny_pipelines import UNET, randomize

FAMILIES = ("sd15", "sd21", "sdxl", "sd3", "sd3.5", "flux-dev", "flux-schnell", "qwen-image")
NUM_PICTURES = len(PROMPTS) + 1
REPORT = ImageVerification(
    reference="diffusers 0 fp32",
    components=(
        ComponentVerification(
            graph="unet", inputs=((2, 4, 16, 16),), relative_error=1e-6, max_error=1e-5
        ),
    ),
    scheduler="DDIMScheduler",
    num_inference_steps=4,
    sizes=((32, 32),),
    mean_psnr=90.0,
    min_psnr=80.0,
    max_difference=1,
    seconds=1.0,
)


def verified(engine: Path, checkpoint: Path) -> VerificationResult:
    config = VerifyConfig(engine_dir=engine, checkpoint_path=checkpoint)
    return verify(read_manifest(engine), config)


@pytest.fixture(scope="module")
def result_of(image_engine, pipeline):
    made = {}

    def get(name):
        if name not in made:
            made[name] = verified(image_engine(name), pipeline(name))
        return made[name]

    return get


@pytest.mark.parametrize("name", FAMILIES)
def test_an_fp32_engine_is_its_reference(result_of, name):
    result = result_of(name)
    report = result.image_report
    assert result.skipped is None
    assert "diffusers" in report.reference
    for component in report.components:
        assert component.relative_error < 3e-5, component
        assert 0 < component.max_error < 1e-3, component
    assert report.max_difference <= 2
    assert report.min_psnr > 50
    assert len(report.sizes) == NUM_PICTURES


@pytest.mark.parametrize("name", FAMILIES)
def test_every_graph_is_compared_at_two_shapes_and_more(result_of, image_engine, name):
    components = result_of(name).image_report.components
    spec = read_manifest(image_engine(name)).image
    texts = [encoder.graph for encoder in spec.text_encoders]
    assert [f"{component.graph}.onnx" for component in components] == [
        *texts,
        spec.denoiser,
        spec.vae_decoder,
        spec.vae_encoder,
    ]
    assert all(len(set(component.inputs)) >= 2 for component in components)
    assert len(set(result_of(name).image_report.sizes)) == 2


def test_random_weights_are_found_out(result_of):
    assert result_of("sd15").is_untrained
    assert result_of("sd21").is_untrained


def test_other_weights_of_one_component_are_found_out(image_engine, own_pipeline):
    checkpoint = own_pipeline("sd15")
    randomize(UNet2DConditionModel(**UNET), seed=7).save_pretrained(checkpoint / "unet")
    report = verified(image_engine("sd15"), checkpoint).image_report
    errors = {component.graph: component.relative_error for component in report.components}
    assert errors.pop("unet") > 0.1
    assert max(errors.values()) < 1e-5
    assert report.min_psnr < 40


def test_a_scheduler_that_draws_noise_is_replaced_by_one_that_does_not(
    image_engine, pipeline, tmp_path
):
    checkpoint = shutil.copytree(pipeline("sd15"), tmp_path / "checkpoint")
    engine = shutil.copytree(image_engine("sd15"), tmp_path / "engine")
    for path in (checkpoint / "scheduler" / "scheduler_config.json", engine):
        path = path / "scheduler_config.json" if path.is_dir() else path
        config = json.loads(path.read_text())
        path.write_text(json.dumps(config | {"_class_name": "EulerAncestralDiscreteScheduler"}))
    report = verified(engine, checkpoint).image_report
    assert report.scheduler == "euler"
    assert report.max_difference <= 2


def test_weights_in_half_precision_only_are_read_as_such(image_engine, own_pipeline):
    checkpoint = own_pipeline("sd15")
    for name, stem in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        path = checkpoint / name / f"{stem}.safetensors"
        tensors = {key: value.half() for key, value in load_file(path).items()}
        save_file(tensors, path.with_name(f"{stem}.fp16.safetensors"), {"format": "pt"})
        path.unlink()
    report = verified(image_engine("sd15"), checkpoint).image_report
    errors = {component.graph: component.relative_error for component in report.components}
    assert 1e-5 < errors["unet"] < 1e-2, "the engine has the full weights, the reference half"
    assert errors["vae_decoder"] < 1e-5


def test_relative_and_maximum_errors_are_those_of_the_worst_run():
    meter = ErrorMeter("unet")
    meter.add(np.array([3.0, 4.0]), np.array([3.0, 4.5]))
    meter.add(np.array([300.0, 400.0]), np.array([300.0, 401.0]))
    assert meter.max_error == 1
    assert meter.relative_error == pytest.approx(0.1)
    with pytest.raises(VerificationFailed, match="unet or its reference gives NaN"):
        meter.add(np.array([1.0]), np.array([np.nan]))
    with pytest.raises(VerificationFailed, match=r"unet gives \[2\] where its reference gives \[1"):
        meter.add(np.array([1.0]), np.array([1.0, 1.0]))


def test_psnr_is_that_of_the_textbook():
    black, grey = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 51, np.uint8)
    assert psnr(black, grey) == pytest.approx(20 * np.log10(255 / 51))
    meter = PictureMeter()
    meter.add(black, black)
    meter.add(black, grey)
    assert (meter.min_psnr, meter.max_difference) == (psnr(black, grey), 51)
    assert meter.mean_psnr == (EQUAL_PSNR + psnr(black, grey)) / 2


def test_sizes_are_bounded_and_two(image_engine):
    spec = read_manifest(image_engine("sd15")).image
    for height, width, multiple in ((512, 512, 8), (1024, 1024, 16), (64, 64, 8), (16, 16, 8)):
        changed = {"default_height": height, "default_width": width, "size_multiple": multiple}
        own, other = sizes(msgspec.structs.replace(spec, latent_scale=8, **changed))
        assert own != other
        assert max(own + other) <= 256
        assert all(side % 16 == 0 for side in own + other)
    wide = msgspec.structs.replace(spec, default_height=512, default_width=1024)
    assert sizes(wide)[0] == (32, 64)


@pytest.fixture
def probe(image_engine):
    """A picture under noise, with noise and latents known, and no model at all."""
    folder = image_engine("sd15")
    spec = read_manifest(folder).image
    request = make_request(
        folder,
        image=red_circle(40, 56),
        strength=0.5,
        guidance_scale=1.0,
        num_inference_steps=4,
        preview_steps=frozenset({1}),
    )
    denoising = Denoising(request, spec, NoiseSchedule.read(folder / spec.scheduler))
    generator = np.random.default_rng(0)
    original = generator.standard_normal((4, 20, 28), np.float32)

    class Encoder:
        def encode_image(self, images):
            return original[None], np.zeros_like(original)[None]

        def encode_text(self, token_ids):
            found = [np.zeros((len(ids), 77, 32), np.float32) for ids in token_ids]
            return tuple(EncodedText(rows) for rows in found)

    denoising.prepare(Encoder())
    return Probe(denoising, original), denoising.latents.copy(), original


def test_a_denoiser_that_finds_the_noise_is_trained(probe):
    found, noisy, original = probe
    schedule = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    alpha = schedule[int(found.denoising.timestep)]
    noise = (noisy - alpha**0.5 * original) / (1 - alpha) ** 0.5
    assert noise.std() == pytest.approx(1, abs=0.05)
    assert not found.is_untrained((noise + 0.2 * original)[None].astype(np.float32))


def test_a_denoiser_that_says_anything_is_untrained(probe):
    found, noisy, _ = probe
    anything = np.random.default_rng(5).standard_normal(noisy.shape, np.float32)
    assert found.is_untrained(anything[None])


@pytest.fixture
def judged(image_engine):
    """`judged(precision, **figures)`: hold a report with these figures against the bars."""

    def judge(precision="fp32", *, untrained=False, error=1e-6, **changes):
        component = msgspec.structs.replace(REPORT.components[0], relative_error=error)
        report = msgspec.structs.replace(REPORT, components=(component,), **changes)
        manifest = read_manifest(image_engine("sd15"))
        check_bars(
            msgspec.structs.replace(manifest, precision=precision),
            VerificationResult(image_report=report, is_untrained=untrained),
        )

    return judge


def test_engines_at_the_bars_pass(judged):
    judged(error=1e-4, max_difference=2, min_psnr=45.0)
    judged(max_difference=9, min_psnr=50.0)
    judged("int8", error=0.1, mean_psnr=25.0, min_psnr=20.0, max_difference=90)


def test_engines_under_a_bar_are_refused_with_their_figures(judged):
    with pytest.raises(VerificationFailed, match=r"the unet is off .* error of 0\.00011.*--force"):
        judged(error=1.1e-4)
    with pytest.raises(VerificationFailed, match=r"by up to 3 of 255 levels at a PSNR of 49\.0"):
        judged(max_difference=3, min_psnr=49.0)
    with pytest.raises(VerificationFailed, match=r"PSNR of 24\.9 dB, but int8 .* 25 dB"):
        judged("int8", mean_psnr=24.9)


def test_of_random_weights_only_the_components_are_judged_and_only_in_fp32(judged):
    judged(untrained=True, max_difference=200, min_psnr=5.0)
    judged("int8", untrained=True, error=0.5, mean_psnr=5.0)
    with pytest.raises(VerificationFailed, match="the unet is off"):
        judged(untrained=True, error=1e-3)


def test_memory_is_that_of_the_largest_stage(image_engine, pipeline):
    manifest = read_manifest(image_engine("sd15"))
    checkpoint = open_diffusion_checkpoint(pipeline("sd15"), "tiny")
    needed = needed_memory(manifest, checkpoint)
    assert 1e9 < needed < 1.1e9
    entry = msgspec.structs.replace(manifest.files["unet.onnx.data"], size=10**14)
    vast = msgspec.structs.replace(manifest, files=manifest.files | {"unet.onnx.data": entry})
    assert needed_memory(vast, checkpoint) > 10**14
    assert "the comparison takes about 200001.0 GB of memory, and" in reason_to_skip(
        vast, checkpoint
    )
    assert needed > available_memory() or reason_to_skip(manifest, checkpoint) is None


def test_without_the_libraries_it_is_skipped_with_a_sentence(image_engine, pipeline, monkeypatch):
    assert missing_packages() == []
    monkeypatch.setattr(verify_module, "_PACKAGES", ("torch", "not_there", "nor_this"))
    result = verified(image_engine("sd15"), pipeline("sd15"))
    assert result.image_report is None
    assert result.skipped.startswith("the reference needs not_there and nor_this: pip install")


def test_a_failing_verification_is_a_sentence(image_engine, pipeline, tmp_path):
    engine = shutil.copytree(image_engine("sd15"), tmp_path / "engine")
    manifest = read_manifest(engine)
    (engine / "unet.onnx.data").write_bytes(b"")
    with pytest.raises(VerificationFailed, match=r"^the verification failed: ") as caught:
        run_verification(manifest, engine, pipeline("sd15"))
    assert "\n" not in str(caught.value)


def test_the_table_says_how_close_the_pictures_are(image_engine, capsys):
    manifest = msgspec.structs.replace(
        read_manifest(image_engine("sd15")), image_verification=REPORT
    )
    print_table(Summary(path="x", seconds=1.0, size=1, is_untrained=True, manifest=manifest))
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "PSNR 90.0 dB (least 80.0), within 1 of 255 levels, against diffusers 0 fp32" in shown
    assert "not judged, since the weights are random; relative errors: unet 1e-06" in shown


def test_the_exporter_records_the_report_of_another_process(pipeline, tmp_path):
    options = ("--checkpoint-path", pipeline("sd15"), "--output", tmp_path, "--json")
    options = (*options, "--precision", "fp32")
    done = subprocess.run(
        [sys.executable, "-m", "export", *map(str, options)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    summary = msgspec.json.decode(done.stdout, type=Summary)
    recorded = read_manifest(tmp_path / "tiny-sd15")
    assert recorded == summary.manifest
    assert summary.is_untrained
    assert recorded.image_verification.max_difference <= 2
    assert recorded.verification_skipped is None


def test_an_engine_under_its_bar_is_not_kept_unless_forced(own_pipeline, tmp_path, monkeypatch):
    far = msgspec.structs.replace(REPORT, max_difference=99, min_psnr=20.0)
    answer = VerificationResult(image_report=far)
    monkeypatch.setattr(command, "run_verification", lambda *args: answer)
    settings = {"checkpoint_path": str(own_pipeline("sd15")), "output": tmp_path / "out"}
    settings["precision"] = "fp32"
    with pytest.raises(VerificationFailed, match="up to 99 of 255 levels"):
        command.export_engine(ExportConfig(**settings), QuietProgress())
    assert not (tmp_path / "out").exists()
    command.export_engine(ExportConfig(**settings, force=True), QuietProgress())
    recorded = read_manifest(tmp_path / "out" / "tiny-sd15")
    assert recorded.image_verification == far


def test_nothing_of_a_checkpoint_is_unpickled_or_run(own_pipeline, image_engine):
    checkpoint = own_pipeline("sd15")
    (checkpoint / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x04not a pickle")
    (checkpoint / "unet" / "unet.py").write_text("raise SystemExit('run')")
    assert verified(image_engine("sd15"), checkpoint).image_report.max_difference <= 2
