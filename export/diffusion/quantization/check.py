"""How much the pictures of an int8 engine differ from those of the same model in fp32."""

from __future__ import annotations

from pathlib import Path

from engines.manifest import ImageSpec
from engines.reports import QuantizationReport
from export.diffusion.quantization.calibration import Calibration
from export.diffusion.quantization.drawing import draw, open_engine
from export.diffusion.verification.agreement import PictureMeter
from export.progress import Progress

MIN_PSNR = 30.0  # dB, the mean over the pictures


def compare_pictures(
    engine_dir: Path, spec: ImageSpec, calibration: Calibration, progress: Progress
) -> QuantizationReport:
    """Draw what was drawn in fp32, from the same noise."""
    engine, meter = open_engine(engine_dir, spec), PictureMeter()
    requests = calibration.requests
    total = sum(request.num_inference_steps for request in requests)
    with progress.stage("comparing pictures", total) as advance:
        for request, reference in zip(requests, calibration.references, strict=True):
            meter.add(reference, draw(engine, request, lambda steps: advance(steps)))
    engine.close()
    return QuantizationReport(
        psnr_mean=meter.mean_psnr,
        psnr_min=meter.min_psnr,
        num_pictures=len(requests),
        num_inference_steps=requests[0].num_inference_steps,
        height=requests[0].height,
        width=requests[0].width,
        num_calibration_prompts=calibration.num_prompts,
    )


def passes(report: QuantizationReport) -> bool:
    return report.psnr_mean >= MIN_PSNR


def describe_failure(report: QuantizationReport) -> str:
    """A clause: what was measured, and what the bar is."""
    return (
        f"pictures in int8 reach a mean PSNR of {report.psnr_mean:.1f} dB against those in fp32 "
        f"(least {report.psnr_min:.1f}), but int8 has to reach {MIN_PSNR:g} dB"
    )
