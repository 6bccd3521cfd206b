"""Engines opened in threads, while the rest of the server is imported and reads its texts.

Opening maps, hashes and arranges weights, which leaves the interpreter to others; imports and
tokenizers hold it. So this imports what opens engines and no more, and is begun first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from engines.load import EngineOptions, load_llm_engine
from engines.machine import available_memory
from engines.store import EngineFolder
from server.config import ServerConfig

if TYPE_CHECKING:
    from engines.load_image import ImageEngineOptions
    from engines.load_pooling import PoolingEngineOptions

_MAX_OPENING = 4  # engines at a time: loading is reading, and the disk is one
_CACHE_SHARE = 0.5  # of the memory that is free, for the caches of all engines
_GUIDED_ROWS = 2  # of a picture in a step: one for the prompt, one for the negative prompt


@dataclass(frozen=True, slots=True)
class Opening:
    """An engine that is being opened."""

    folder: EngineFolder
    engine: Future[Any]  # an LLMEngine, an ImageEngine or a PoolingEngine
    started: float  # by time.perf_counter()


def open_engines(folders: Sequence[EngineFolder], config: ServerConfig) -> list[Opening]:
    """Begin to open all engines, several side by side."""
    options = engine_options(config, folders)
    executor = ThreadPoolExecutor(min(len(folders), _MAX_OPENING), thread_name_prefix="opening")
    started = time.perf_counter()
    try:
        return [
            Opening(folder, executor.submit(_opener(folder, options, config)), started)
            for folder in folders
        ]
    finally:
        executor.shutdown(wait=False)


def _opener(
    folder: EngineFolder, options: EngineOptions, config: ServerConfig
) -> Callable[[], Any]:
    kind = folder.manifest.kind
    if kind == "chat":
        if folder.manifest.target != "ort-cpu":  # its memory is another
            options = replace(options, kv_cache_memory=config.kv_cache_memory)
        return lambda: load_llm_engine(folder, options)
    if kind == "image":
        return lambda: _open_image_engine(folder, config)
    return lambda: _open_pooling_engine(folder, config)


def _open_image_engine(folder: EngineFolder, config: ServerConfig) -> Any:
    from engines.load_image import load_image_engine

    return load_image_engine(folder, image_engine_options(config))


def _open_pooling_engine(folder: EngineFolder, config: ServerConfig) -> Any:
    from engines.load_pooling import load_pooling_engine

    return load_pooling_engine(folder, pooling_engine_options(folder, config))


def engine_options(config: ServerConfig, folders: Sequence[EngineFolder]) -> EngineOptions:
    """The settings of each language model.

    Without `--kv-cache-memory` those on the CPU share what is free once image models have been
    loaded; a GPU's are measured when one is.
    """
    kv_cache_memory = config.kv_cache_memory
    if kv_cache_memory is None and len(folders) > 1:
        num_caches = sum(
            folder.manifest.kind == "chat" and folder.manifest.target == "ort-cpu"
            for folder in folders
        )
        others = [folder.manifest for folder in folders if folder.manifest.kind != "chat"]
        weights = sum(entry.size for manifest in others for entry in manifest.files.values())
        free = max(available_memory() - weights, 0)
        kv_cache_memory = max(int(free * _CACHE_SHARE) // max(num_caches, 1), 1)
    return EngineOptions(
        max_num_seqs=config.max_num_seqs,
        num_threads=config.num_threads,
        kv_cache_memory=kv_cache_memory,
        max_context=config.max_context,
        prefill_chunk=config.prefill_chunk,
        prefill_chunk_streaming=config.prefill_chunk_streaming,
        max_draft_tokens=config.max_draft_tokens,
        verify_files=config.verify_files,
        device=config.device,
        gpu_memory_utilization=config.gpu_memory_utilization,
        rebuild=config.rebuild,
    )


def image_engine_options(config: ServerConfig) -> ImageEngineOptions:
    """The settings of each image model, which has all cores too: mostly one engine is at work."""
    from engines.load_image import ImageEngineOptions

    return ImageEngineOptions(
        max_num_images=config.max_num_images,
        max_rows=_GUIDED_ROWS * config.max_num_images,
        num_threads=config.num_threads,
        verify_files=config.verify_files,
        vae_tiling=config.vae_tiling,
        vae_tile_size=config.vae_tile_size,
        device=config.device,
        rebuild=config.rebuild,
    )


def pooling_engine_options(folder: EngineFolder, config: ServerConfig) -> PoolingEngineOptions:
    """The settings of a model that reads texts."""
    from engines.load_pooling import PoolingEngineOptions, require_pooling

    spec = require_pooling(folder)
    return PoolingEngineOptions(
        num_threads=config.num_threads,
        max_context=min(config.max_context or spec.max_context, spec.max_context),
        verify_files=config.verify_files,
        device=config.device,
    )
