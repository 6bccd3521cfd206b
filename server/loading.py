"""Engine folders into served models: names, memory, threads and the text layer."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from engines.errors import EngineError
from engines.load import EngineOptions, available_memory, load_llm_engine, require_chat
from engines.store import EngineFolder
from server.config import ServerConfig
from server.registry import ModelRegistry, ServedModel
from server.text.processor import TextProcessor
from server.worker import EngineWorker

logger = logging.getLogger(__name__)

_MAX_LOADING = 4  # engines at a time: loading is reading, and the disk is one
_CACHE_SHARE = 0.5  # of the memory that is free, for the caches of all engines


def load_models(folders: Sequence[EngineFolder], config: ServerConfig) -> ModelRegistry:
    """Load every engine, several side by side.

    Raises:
        EngineError: Two engines share a name, a name stands for none, or one cannot be loaded.
    """
    names = served_names(folders, config.served_names)
    options = engine_options(config, len(folders))
    with ThreadPoolExecutor(min(len(folders), _MAX_LOADING)) as executor:
        loading = [
            executor.submit(_load, folder, its_names, options, config)
            for folder, its_names in zip(folders, names, strict=True)
        ]
        models = [future.result() for future in loading]
    return ModelRegistry(models, accept_any_model=config.accept_any_model)


def served_names(folders: Sequence[EngineFolder], given: Sequence[str]) -> list[tuple[str, ...]]:
    """The names that each engine is listed under: those given to it, or else its id.

    Args:
        folders: The engines.
        given: `NAME=ENGINE`, or `NAME` where there is one engine.

    Raises:
        EngineError: Two engines have one id or one name, or a name stands for no engine.
    """
    ids = [folder.manifest.id for folder in folders]
    _check_unique(folders, [(engine_id,) for engine_id in ids])
    aliases: dict[str, list[str]] = {engine_id: [] for engine_id in ids}
    for entry in given:
        name, _, engine_id = entry.rpartition("=")
        if not name:
            name, engine_id = entry, ids[0]
            if len(ids) > 1:
                raise EngineError(
                    f"--served-model-name {entry} could be any of {', '.join(ids)}: "
                    f"write {entry}=ENGINE"
                )
        if engine_id not in aliases:
            raise EngineError(
                f"--served-model-name {entry} names the engine {engine_id!r}, but there is only "
                f"{', '.join(ids)}"
            )
        if name not in aliases[engine_id]:
            aliases[engine_id].append(name)
    names = [tuple(aliases[engine_id]) or (engine_id,) for engine_id in ids]
    _check_unique(folders, names)
    return names


def engine_options(config: ServerConfig, num_engines: int) -> EngineOptions:
    """The settings of each engine; without `--kv-cache-memory` they share the free memory."""
    kv_cache_memory = config.kv_cache_memory
    if kv_cache_memory is None and num_engines > 1:
        kv_cache_memory = max(int(available_memory() * _CACHE_SHARE) // num_engines, 1)
    return EngineOptions(
        max_num_seqs=config.max_num_seqs,
        num_threads=config.num_threads,
        kv_cache_memory=kv_cache_memory,
        max_context=config.max_context,
        prefill_chunk=config.prefill_chunk,
        prefill_chunk_streaming=config.prefill_chunk_streaming,
        verify_files=config.verify_files,
    )


def _check_unique(folders: Sequence[EngineFolder], names: Sequence[tuple[str, ...]]) -> None:
    owners: dict[str, EngineFolder] = {}
    for folder, its_names in zip(folders, names, strict=True):
        for name in its_names:
            other = owners.setdefault(name, folder)
            if other is not folder:
                raise EngineError(
                    f"the engines in {other.path} and {folder.path} are both named {name!r}: "
                    "serve one of them, or export one again with --name"
                )


def _load(
    folder: EngineFolder, names: tuple[str, ...], options: EngineOptions, config: ServerConfig
) -> ServedModel:
    started = time.perf_counter()
    require_chat(folder)
    try:
        text = TextProcessor.load(folder.path)
        engine = load_llm_engine(folder, options)
    except Exception as error:
        # A runtime raises types of its own for a graph that it cannot read.
        logger.debug("cannot load %s", folder.path, exc_info=True)
        raise EngineError(
            f"the engine {folder.manifest.id!r} in {folder.path} cannot be loaded: {error}"
        ) from error
    worker = EngineWorker(
        engine,
        name=names[0],
        max_queue_size=config.max_queue_size,
        request_timeout_s=config.request_timeout,
    )
    logger.info("loaded %s in %.1f s", names[0], time.perf_counter() - started)
    return ServedModel(names[0], folder, worker, text, aliases=names[1:])
