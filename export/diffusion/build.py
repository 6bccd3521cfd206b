"""From a plan to the files of an image engine, in int8 where its pictures allow it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import msgspec

from engines.manifest import Manifest, Target
from export.diffusion.engine import (
    ImagePlan,
    compile_gpu_image_engine,
    compile_image_engine,
    write_settings,
)
from export.diffusion.pipelines import Family
from export.errors import ExportError, VerificationFailed
from export.memory import available_memory
from export.progress import Progress

ImagePrecision = Literal["fp32", "fp16", "bf16", "int8"]
_ON_GPUS: tuple[ImagePrecision, ...] = ("fp16", "bf16", "fp32")
PRECISIONS: Mapping[Target, tuple[ImagePrecision, ...]] = MappingProxyType(
    {"ort-cpu": ("int8", "fp32"), "cuda": _ON_GPUS, "tensorrt": _ON_GPUS}
)

INT8_FAMILIES: tuple[Family, ...] = ("stable-diffusion", "stable-diffusion-xl")

_SCRATCH = ".calibration"  # within the engine's folder, so that it goes with it
_HEADROOM = 1.5  # what a runtime and the activations take beside the weights


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageBuildOptions:
    """How to build.

    Attributes:
        precision: What was asked for; None is int8 where it is possible and good enough, and for a
            GPU what the family is compiled in first.
        calibration_prompts: What the model draws while its activations are measured.
        verify: Whether pictures in int8 are compared with those in fp32.
        force: Whether int8 is kept where they differ too much.
        target: What will run the engine.
        reduce_range: Whether weights in int8 fill 7 bits only.
    """

    precision: ImagePrecision | None
    calibration_prompts: tuple[str, ...]
    verify: bool = True
    force: bool = False
    target: Target = "ort-cpu"
    reduce_range: bool = False


def image_precision(asked: str | None, target: Target) -> ImagePrecision | None:
    """What was asked for; None leaves it to the family and the pictures.

    Raises:
        ExportError: Image models have no such precision there.
    """
    if asked is None:
        return None
    for precision in PRECISIONS[target]:
        if precision == asked:
            return precision
    raise ExportError(
        f"--precision is {asked}, but image checkpoints are compiled for {target} in "
        f"{' or '.join(PRECISIONS[target])}: choose one"
    )


def build_image_engine(
    plan: ImagePlan, options: ImageBuildOptions, engine_dir: Path, progress: Progress
) -> Manifest:
    """Write all files of the engine but `engine.json`; return its manifest.

    Raises:
        ExportError: Int8 was asked for and cannot be had.
        VerificationFailed: Int8 was asked for, and its pictures differ too much from fp32.
    """
    if options.target != "ort-cpu":
        assert options.precision != "int8", "image_precision refuses it"
        return compile_gpu_image_engine(
            plan, engine_dir, progress, options.target, options.precision
        )
    if options.precision == "fp32":
        return compile_image_engine(plan, engine_dir, progress)
    obstacle = _obstacle(plan, options)
    if obstacle is not None:
        if options.precision == "int8":
            raise ExportError(f"--precision is int8, but {obstacle}: leave it out for fp32")
        return _in_fp32(plan, engine_dir, progress, obstacle)
    return _in_int8(plan, options, engine_dir, progress)


def _in_int8(
    plan: ImagePlan, options: ImageBuildOptions, engine_dir: Path, progress: Progress
) -> Manifest:
    # Imported here because they import the runtime, which an export in fp32 does without.
    from export.diffusion.quantization.calibration import calibrate
    from export.diffusion.quantization.check import compare_pictures, describe_failure, passes

    scratch = engine_dir / _SCRATCH
    scratch.mkdir()
    write_settings(plan, scratch)
    prompts = options.calibration_prompts
    calibration = calibrate(
        plan.graphs, plan.spec, scratch, prompts, progress, compares=options.verify
    )
    shutil.rmtree(scratch)
    write = partial(
        compile_image_engine, plan, engine_dir, progress, reduce_range=options.reduce_range
    )
    manifest = write(calibration.ranges)
    if not options.verify:
        return manifest
    report = compare_pictures(engine_dir, plan.spec, calibration, progress)
    if not passes(report):
        # Where a model has a few values far beyond all others, whole ranges leave little for those.
        manifest = write(calibration.clipped_ranges)
        report = compare_pictures(engine_dir, plan.spec, calibration, progress)
    if passes(report) or options.force:
        return msgspec.structs.replace(manifest, quantization=report)
    failure = describe_failure(report)
    if options.precision == "int8":
        raise VerificationFailed(
            f"{failure}: choose --precision fp32, name other --calibration-prompts, or keep it by "
            "--force"
        )
    manifest = _in_fp32(plan, engine_dir, progress, failure)
    return msgspec.structs.replace(manifest, quantization=report)


def _in_fp32(plan: ImagePlan, engine_dir: Path, progress: Progress, reason: str) -> Manifest:
    manifest = compile_image_engine(plan, engine_dir, progress)
    return msgspec.structs.replace(manifest, precision_reason=reason)


def _obstacle(plan: ImagePlan, options: ImageBuildOptions) -> str | None:
    """A clause that says why int8 cannot be tried, or None."""
    family = plan.checkpoint.pipeline.family
    if family not in INT8_FAMILIES:
        return f"{family} is compiled in fp32 only"
    if options.precision is None and not options.verify:
        return "without verification nothing says whether int8 is good enough"
    if find_spec("onnxruntime") is None:
        return (
            "ONNX Runtime, which measures the activations, is not installed: "
            "pip install 'enginery[cpu]'"
        )
    needed, available = int(plan.spec.num_parameters * 4 * _HEADROOM), available_memory()
    if needed > available:
        return (
            f"measuring the activations takes about {needed / 1e9:.1f} GB of memory, and "
            f"{available / 1e9:.1f} GB are available"
        )
    return None
