"""Build the plans of an engine for TensorRT at its export, where there is a GPU for it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from engines.device import Device
from engines.errors import EngineIncompatible
from engines.manifest import Manifest
from export.errors import ExportError
from export.progress import Progress


def add_plans(manifest: Manifest, folder: Path, progress: Progress) -> Manifest:
    """The manifest with the plans that were built, or with the sentence that says why not.

    An engine without plans is whole: they are built where it is first served with --rebuild.

    Raises:
        ExportError: TensorRT could not build them.
    """
    spec = manifest.chat
    if manifest.target != "tensorrt" or spec is None:
        return manifest
    from engines.backends.cuda import find_gpu
    from engines.backends.tensorrt_library import plan_device
    from engines.backends.tensorrt_plan import build_chat_plan

    try:
        here = plan_device(find_gpu(Device("cuda")))
    except EngineIncompatible as error:
        return msgspec.structs.replace(
            manifest,
            verification_skipped=f"it has no plan yet, as {error}; it is built where the engine "
            "is served once with --rebuild",
        )
    try:
        with progress.stage("building the plan", None) as advance:

            def report(phase: str, done: int, total: int) -> bool:
                advance(0, f"{phase}, {done} of {total}")
                return True

            return build_chat_plan(folder, manifest, spec, here, report)
    except EngineIncompatible as error:
        raise ExportError(str(error)) from error
