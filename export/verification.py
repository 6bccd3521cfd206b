"""Have an engine verified in another process, and hold the report against the bars."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

import msgspec

from engines.manifest import Manifest, Precision
from engines.reports import ImageVerification
from export.errors import VerificationFailed
from export.lora.option import Lora
from export.pooling.bars import check_pooling_bars
from export.verify import VerificationResult

# precision -> (top-1 agreement at least, mean KL divergence in nats at most)
BARS = {"fp32": (0.999, 1e-4), "int8": (0.98, 0.01), "int4": (0.90, 0.1)}

# Of image engines. In fp32 a component may be off by so much, relatively; pictures by so many of
# 255 levels, or by less than PSNR in dB says. In int8 the mean PSNR of the pictures counts; that of
# the calibration, against our own fp32, is the sharper bar, and what both get wrong is found here.
MAX_COMPONENT_ERROR = 1e-4
MAX_LEVELS, MIN_PSNR = 2, 50.0
MIN_PSNR_INT8 = 25.0


def run_verification(
    manifest: Manifest, engine_dir: Path, checkpoint: Path, loras: tuple[Lora, ...] = ()
) -> VerificationResult:
    """Run `python -m export.verify`; it ends with this process, however that ends.

    Raises:
        VerificationFailed: The process failed or was killed.
    """
    command = [sys.executable, "-P", "-m", "export.verify", "--manifest-on-stdin"]
    command += ["--engine-dir", str(engine_dir), "--checkpoint-path", str(checkpoint)]
    for lora in loras:  # with '=', since a strength may be negative
        command += [f"--lora={lora.path}", f"--lora-scale={lora.scale}"]
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_environment(),
        ) as process,
    ):
        try:
            output = _converse(process, msgspec.json.encode(manifest) + b"\n")
        except BaseException:
            process.kill()
            raise
        if process.returncode != 0:
            raise VerificationFailed(_failure(process.returncode, errors))
    return msgspec.json.decode(output, type=VerificationResult)


def check_bars(manifest: Manifest, result: VerificationResult) -> None:
    """Refuse an engine that is too far from its reference.

    Raises:
        VerificationFailed: It misses a bar of its precision.
    """
    if result.image_report is not None:
        _check_image_bars(manifest, result.image_report, result.is_untrained)
    check_pooling_bars(manifest, result)
    report = result.report
    if report is None or result.is_untrained:
        return
    precision = _judged_precision(manifest)
    least_top1, most_kl = BARS[precision]
    if report.top1_agreement >= least_top1 and report.mean_kl <= most_kl:
        return
    raise VerificationFailed(
        f"the engine agrees with {report.reference} on {report.top1_agreement:.1%} of the tokens "
        f"at a mean KL of {report.mean_kl:.3g}, but {precision} has to reach "
        f"{least_top1:.0%} and {most_kl:g}: choose a higher precision, raise some nodes by "
        "--override, or keep it by --force"
    )


def _judged_precision(manifest: Manifest) -> Precision:
    """The lowest of what the weights and the cache have."""
    spec = manifest.chat
    if spec is None:
        return manifest.precision
    if manifest.precision == "fp32" and spec.cache_quantization is not None:
        return "int8"
    return spec.decode_precision or manifest.precision


def _check_image_bars(manifest: Manifest, report: ImageVerification, is_untrained: bool) -> None:
    """With random weights components still have to compute what they should, in fp32."""
    if manifest.precision != "fp32":
        if not is_untrained and report.mean_psnr < MIN_PSNR_INT8:
            raise VerificationFailed(
                f"pictures are like those of {report.reference} with a mean PSNR of "
                f"{report.mean_psnr:.1f} dB, but {manifest.precision} has to reach "
                f"{MIN_PSNR_INT8:g} dB: choose --precision fp32, or keep it by --force"
            )
        return
    worst = max(report.components, key=lambda component: component.relative_error)
    if worst.relative_error > MAX_COMPONENT_ERROR:
        raise VerificationFailed(
            f"the {worst.graph} is off from {report.reference} by a relative error of "
            f"{worst.relative_error:.2g}, but fp32 may be off by {MAX_COMPONENT_ERROR:g} at the "
            "most: keep the engine by --force"
        )
    is_close = report.max_difference <= MAX_LEVELS or report.min_psnr >= MIN_PSNR
    if not is_untrained and not is_close:
        raise VerificationFailed(
            f"pictures differ from those of {report.reference} by up to {report.max_difference} of "
            f"255 levels at a PSNR of {report.min_psnr:.1f} dB, but fp32 has to stay within "
            f"{MAX_LEVELS} levels or reach {MIN_PSNR:g} dB: keep the engine by --force"
        )


def _environment() -> dict[str, str]:
    """The other process finds this package where this one did, from whatever folder it runs."""
    paths = [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _converse(process: subprocess.Popen[bytes], message: bytes) -> bytes:
    """Send the manifest, and leave standard input open until the answer is complete."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(message)
        process.stdin.flush()
    except BrokenPipeError:  # it failed at once; its error says why
        pass
    output = process.stdout.read()
    process.wait()
    return output


def _failure(status: int, errors: IO[bytes]) -> str:
    if status < 0:
        return (
            f"the verification was ended by signal {-status}, perhaps for lack of memory: "
            "add --no-verify to export without it"
        )
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    reason = lines[-1].removeprefix("error: ") if lines else f"exit status {status}"
    return f"the verification failed: {reason}"
