"""The real command on image checkpoints: what is left when it fails, is interrupted or killed."""

from __future__ import annotations

import contextlib
import resource
import signal
import subprocess

import pytest

from tests.export.test_processes import command, export, names, processes_that_mention, wait_until

DEADLINE = 300  # seconds, for what takes a few


@contextlib.contextmanager
def running_export(checkpoint, output):
    """An export that has compiled and is about to verify; ended at the latest by the test."""
    process = subprocess.Popen(
        command(checkpoint, output, "--precision", "fp32", "--quiet"),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: (output / ".tiny-sd15.partial" / "vae_encoder.onnx").exists())
        yield process
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_an_interrupted_export_leaves_nothing(pipeline, tmp_path, number, status, word):
    output = tmp_path / "out"
    with running_export(pipeline("sd15"), output) as process:
        process.send_signal(number)
        assert process.wait(DEADLINE) == status
        assert process.stderr.read() == f"{word}\n"
    assert names(tmp_path) == []
    wait_until(lambda: not processes_that_mention(str(output)))


def test_a_killed_export_leaves_no_engine_and_the_next_one_clears_it_away(pipeline, tmp_path):
    with running_export(pipeline("sd15"), tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(DEADLINE)
    assert names(tmp_path) == [".tiny-sd15.partial"]
    assert not list(tmp_path.rglob("engine.json"))
    wait_until(lambda: not processes_that_mention(str(tmp_path)))

    options = ("--precision", "fp32", "--no-verify", "--quiet")
    result = export(pipeline("sd15"), tmp_path, *options)
    assert (result.returncode, result.stderr) == (0, "")
    assert names(tmp_path) == ["tiny-sd15"]


def test_a_full_disk_is_one_sentence_and_leaves_nothing(pipeline, tmp_path):
    def limit_file_size():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    options = ("--precision", "fp32", "--quiet")
    result = export(pipeline("sd15"), tmp_path / "out", *options, preexec_fn=limit_file_size)
    assert result.returncode == 1
    assert "there is not enough space for" in result.stderr
    assert result.stderr.count("\n") == 1
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (
            lambda folder: (folder / "model_index.json").write_text('{"_class_name": "Unknown"}'),
            "the checkpoint's pipeline is Unknown, but it must be one of: StableDiffusionPipeline,",
        ),
        (
            lambda folder: (folder / "vae").rename(folder / "away"),
            "model_index.json names the component vae, but there is no folder",
        ),
        (
            lambda folder: next((folder / "unet").glob("*.safetensors")).rename(
                folder / "unet" / "diffusion_pytorch_model.bin"
            ),
            "holds pickled weights (diffusion_pytorch_model.bin), which can run code",
        ),
        (
            lambda folder: next((folder / "unet").glob("*.safetensors")).write_bytes(b"damaged"),
            "is truncated: it has 7 bytes",
        ),
    ],
    ids=["pipeline", "component", "pickled", "damaged"],
)
def test_a_checkpoint_that_cannot_be_compiled_is_one_sentence(
    own_pipeline, tmp_path, damage, sentence
):
    folder = own_pipeline("sd15")
    damage(folder)
    result = export(folder, tmp_path / "out", "--quiet")
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
