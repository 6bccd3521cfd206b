"""The plans of an image model: one for each graph, for all sizes of pictures that it may draw.

Nothing here has run on a GPU yet (docs/gpu.md).
"""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from engines.backends.cuda import Gpu
from engines.backends.tensorrt_builder import TIMING_CACHE, Profile, Progress, build_plan
from engines.backends.tensorrt_library import plan_device
from engines.backends.tensorrt_plan import why_not
from engines.errors import EngineIncompatible
from engines.manifest import (
    FileEntry,
    GraphSignature,
    ImageSpec,
    Manifest,
    PlanDevice,
    write_manifest,
)
from engines.store import EngineFolder, sha256

logger = logging.getLogger(__name__)

MAX_ROWS = 8  # of a run: four guided pictures
_USUAL_ROWS = 2
_OF_THE_DENOISER = frozenset({"sample"})

Sizes = tuple[int, int, int]  # least, usual, largest


def plan_name(graph: str) -> str:
    """The file of a graph's plan, beside it."""
    return f"{Path(graph).stem}.plan"


def image_plans(folder: EngineFolder, spec: ImageSpec, gpu: Gpu, *, rebuild: bool) -> None:
    """Make sure that every graph has a plan for this GPU and this TensorRT.

    Raises:
        EngineIncompatible: One has none, and `rebuild` is not set.
    """
    here = plan_device(gpu)
    paths = [folder.path / plan_name(graph) for graph in spec.graphs]
    reasons = [why_not(folder.manifest, path, here) for path in paths]
    reason = next(filter(None, reasons), None)
    if reason is None:
        return
    if not rebuild:
        raise EngineIncompatible(
            f"{folder.path} {reason}: build it here by serving it once with --rebuild "
            f"(`python -m server --engine-dir {folder.path} --rebuild`)"
        )
    logger.info("building the plans of %s, which takes minutes", folder.path)
    manifest = build_image_plans(folder.path, folder.manifest, spec, here, _log_progress)
    write_manifest(manifest, folder.path)


def build_image_plans(
    folder: Path, manifest: Manifest, spec: ImageSpec, here: PlanDevice, progress: Progress
) -> Manifest:
    """Build all plans of an engine's folder; the manifest that names them is not written."""
    cache = folder / TIMING_CACHE
    paths = []
    for graph, signature in spec.graphs.items():
        plan = folder / plan_name(graph)
        profile = image_profile(spec, signature)
        build_plan(folder / graph, plan, [profile], progress, timing_cache=cache)
        paths.append(plan)
    files = manifest.files | {
        path.name: FileEntry(size=path.stat().st_size, sha256=sha256(path))
        for path in (*paths, cache)
    }
    return msgspec.structs.replace(manifest, files=files, device=here)


def image_profile(spec: ImageSpec, signature: GraphSignature) -> Profile:
    """From the smallest picture to the largest, and fastest for the model's own size."""
    sizes = _sizes(spec, is_denoiser="sample" in signature.inputs)
    return {
        name: (shapes[0], shapes[1], shapes[2])
        for name, tensor in signature.inputs.items()
        if (
            shapes := [
                tuple(sizes[s][index] if isinstance(s, str) else s for s in tensor.shape)
                for index in range(3)
            ]
        )
    }


def _sizes(spec: ImageSpec, *, is_denoiser: bool) -> dict[str, Sizes]:
    scale, least = spec.latent_scale, spec.size_multiple
    found: dict[str, Sizes] = {}
    for side, usual in (("height", spec.default_height), ("width", spec.default_width)):
        largest = spec.max_side or spec.max_pixels // least
        found[f"image_{side}"] = least, usual, largest
        found[side] = least // scale, usual // scale, largest // scale
    texts = sum(
        encoder.max_length for encoder in spec.text_encoders if encoder.context == "behind"
    ) + max(
        (encoder.max_length for encoder in spec.text_encoders if encoder.context == "beside"),
        default=0,
    )
    tokens = texts + spec.num_empty_rows
    found["num_tokens"] = 1, tokens, tokens
    for encoder in spec.text_encoders:
        if encoder.pad_token_id is None:  # it reads each text as long as it is
            empty = len(encoder.prefix_token_ids) + len(encoder.suffix_token_ids)
            found["num_ids"] = empty, encoder.max_length, encoder.max_length
    found["batch"] = (1, _USUAL_ROWS, MAX_ROWS) if is_denoiser else (1, 1, _USUAL_ROWS)
    return found


def _log_progress(phase: str, done: int, total: int) -> bool:
    logger.debug("TensorRT: %s, %d of %d", phase, done, total)
    return True
