"""The plan of a language model: for this GPU and this TensorRT, or refused, or built anew."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from engines.backends.cuda import Gpu
from engines.backends.gpu_session import length_bucket
from engines.backends.tensorrt_builder import TIMING_CACHE, Profile, Progress, build_plan
from engines.backends.tensorrt_library import plan_device
from engines.errors import EngineIncompatible
from engines.manifest import ChatSpec, FileEntry, Manifest, PlanDevice, write_manifest
from engines.store import EngineFolder, sha256

logger = logging.getLogger(__name__)

MAX_SLOTS = 64  # of a decode step
MAX_CHUNK = 512  # tokens of a prompt in one run
_USUAL_SLOTS = 8


def plan_name(spec: ChatSpec) -> str:
    """The file of the plan, beside the graph that it is built from."""
    return f"{Path(spec.graph).stem}.plan"


def chat_plan(folder: EngineFolder, spec: ChatSpec, gpu: Gpu, *, rebuild: bool) -> Path:
    """The plan's file.

    Raises:
        EngineIncompatible: There is none for this GPU and this TensorRT, and `rebuild` is not set.
    """
    path = folder.path / plan_name(spec)
    here = plan_device(gpu)
    reason = why_not(folder.manifest, path, here)
    if reason is None:
        return path
    if not rebuild:
        raise EngineIncompatible(
            f"{folder.path} {reason}: build it here by serving it once with --rebuild "
            f"(`python -m server --engine-dir {folder.path} --rebuild`)"
        )
    logger.info("building the plan of %s, which takes minutes", folder.path)
    manifest = build_chat_plan(folder.path, folder.manifest, spec, here, _log_progress)
    write_manifest(manifest, folder.path)
    return path


def why_not(manifest: Manifest, plan: Path, here: PlanDevice) -> str | None:
    """What keeps a plan from running here, as the end of a sentence; None if nothing does."""
    there = manifest.device
    if there is None or not plan.exists():
        return "has no plan yet"
    if there == here:
        return None
    return (
        f"has a plan of {there.gpu} (compute capability {there.compute_capability}) and TensorRT "
        f"{there.tensorrt}, but this is {here.gpu} ({here.compute_capability}) with "
        f"{here.tensorrt}"
    )


def build_chat_plan(
    folder: Path,
    manifest: Manifest,
    spec: ChatSpec,
    here: PlanDevice,
    progress: Progress,
) -> Manifest:
    """Build the plan of an engine's folder; the manifest that names it, which is not written."""
    plan = folder / plan_name(spec)
    cache = folder / TIMING_CACHE
    build_plan(folder / spec.graph, plan, chat_profiles(spec), progress, timing_cache=cache)
    files = manifest.files | {
        path.name: FileEntry(size=path.stat().st_size, sha256=sha256(path))
        for path in (plan, cache)
    }
    return msgspec.structs.replace(manifest, files=files, device=here)


def chat_profiles(spec: ChatSpec) -> list[Profile]:
    """Decode steps and chunks of prompts, for each length that runs look back over."""
    num_rows = spec.max_context + spec.spare_rows
    lengths = sorted({length_bucket(length, num_rows) for length in range(1, num_rows + 1, 1023)})
    if lengths[-1] != num_rows:
        lengths.append(num_rows)
    chunk = min(MAX_CHUNK, spec.max_context)
    return [
        profile
        for length in lengths
        for profile in (
            _profile(spec, num_rows, length, slots=(1, _USUAL_SLOTS, MAX_SLOTS), size=(1, 1, 1)),
            _profile(spec, num_rows, length, slots=(1, 1, 1), size=(1, chunk, chunk)),
        )
    ]


def _profile(
    spec: ChatSpec,
    num_rows: int,
    visible: int,
    slots: tuple[int, int, int],
    size: tuple[int, int, int],
) -> Profile:
    tokens = tuple(zip(slots, size, strict=True))
    rows = tuple(n * s for n, s in tokens)
    profile: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
        "input_ids": (tokens[0], tokens[1], tokens[2]),
        "position_ids": (tokens[0], tokens[1], tokens[2]),
        "write_indices": ((slots[0],), (slots[1],), (slots[2],)),
        "cache_positions": ((visible,), (visible,), (visible,)),
        # A chunk mostly wants one row of logits, a decode step one for each slot.
        "logit_indices": ((1,), (1,) if size[2] > 1 else (rows[1],), (rows[2],)),
    }
    for state in spec.states:
        shapes = [(n, state.heads, num_rows, state.width) for n in slots]
        profile[state.input] = (shapes[0], shapes[1], shapes[2])
    return profile


def _log_progress(phase: str, done: int, total: int) -> bool:
    logger.debug("TensorRT: %s, %d of %d", phase, done, total)
    return True
