"""Engine folders into served models: names, memory, threads and the text layer."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from engines.errors import EngineError
from engines.llm.engine import LLMEngine
from engines.load import EngineOptions, load_llm_engine, require_chat
from engines.load_image import ImageEngineOptions, load_image_engine
from engines.load_pooling import PoolingEngineOptions, load_pooling_engine, require_pooling
from engines.machine import available_memory
from engines.pooling.spec import RerankSpec
from engines.store import EngineFolder
from server.chat_worker import ChatWorker
from server.config import ServerConfig
from server.image_worker import ImageWorker
from server.images.prompts import PromptEncoder
from server.pooling_worker import PoolingWorker
from server.registry import (
    ChatModel,
    EmbeddingModel,
    ImageModel,
    ModelRegistry,
    PoolingModel,
    RerankModel,
    ServedModel,
)
from server.text.grammar import GrammarCompiler
from server.text.pair_prompts import PairPrompts
from server.text.processor import TextProcessor
from server.text.tokenizer import Tokenizer, read_tokenizer_config

logger = logging.getLogger(__name__)

_MAX_LOADING = 4  # engines at a time: loading is reading, and the disk is one
_CACHE_SHARE = 0.5  # of the memory that is free, for the caches of all engines
_GUIDED_ROWS = 2  # of a picture in a step: one for the prompt, one for the negative prompt


def load_models(folders: Sequence[EngineFolder], config: ServerConfig) -> ModelRegistry:
    """Load every engine, several side by side.

    Raises:
        EngineError: Two engines share a name, a name stands for none, or one cannot be loaded.
    """
    names = served_names(folders, config.served_names)
    options = engine_options(config, folders)
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
    kind = folder.manifest.kind
    try:
        if kind == "chat":
            model: ServedModel = _load_chat(folder, names, options, config)
        elif kind == "image":
            model = _load_image(folder, names, config)
        else:
            model = _load_pooling(folder, names, config)
    except Exception as error:
        # A runtime raises types of its own for a graph that it cannot read.
        logger.debug("cannot load %s", folder.path, exc_info=True)
        raise EngineError(
            f"the engine {folder.manifest.id!r} in {folder.path} cannot be loaded: {error}"
        ) from error
    logger.info("loaded %s in %.1f s", names[0], time.perf_counter() - started)
    return model


def _load_chat(
    folder: EngineFolder, names: tuple[str, ...], options: EngineOptions, config: ServerConfig
) -> ChatModel:
    if folder.manifest.target != "ort-cpu":  # its memory is another
        options = replace(options, kv_cache_memory=config.kv_cache_memory)
    engine, text = _load_engine_and_text(folder, options)
    worker = ChatWorker(
        engine,
        name=names[0],
        max_queue_size=config.max_queue_size,
        request_timeout_s=config.request_timeout,
    )
    spec = require_chat(folder)
    grammars = GrammarCompiler(
        (folder.path / "tokenizer.json").read_text, spec.num_tokens, spec.eos_token_ids
    )
    return ChatModel(
        id=names[0],
        folder=folder,
        worker=worker,
        text=text,
        grammars=grammars,
        aliases=names[1:],
    )


def _load_engine_and_text(
    folder: EngineFolder, options: EngineOptions
) -> tuple[LLMEngine, TextProcessor]:
    """Both side by side: a large vocabulary takes as long as mapping the weights."""
    with ThreadPoolExecutor(1) as executor:
        loading = executor.submit(load_llm_engine, folder, options)
        try:
            text = TextProcessor.load(folder.path)
        except BaseException:
            loading.result().close()
            raise
        return loading.result(), text


def _load_image(folder: EngineFolder, names: tuple[str, ...], config: ServerConfig) -> ImageModel:
    engine = load_image_engine(folder, image_engine_options(config))
    worker = ImageWorker(
        engine,
        name=names[0],
        max_queue_size=config.max_image_queue_size,
        request_timeout_s=config.request_timeout,
    )
    prompts = PromptEncoder.load(folder.path, engine.spec)
    return ImageModel(id=names[0], folder=folder, worker=worker, prompts=prompts, aliases=names[1:])


def _load_pooling(
    folder: EngineFolder, names: tuple[str, ...], config: ServerConfig
) -> PoolingModel:
    spec = require_pooling(folder)
    tokenizer = Tokenizer.from_folder(folder.path, read_tokenizer_config(folder.path))
    options = PoolingEngineOptions(
        num_threads=config.num_threads,
        max_context=min(config.max_context or spec.max_context, spec.max_context),
        verify_files=config.verify_files,
        device=config.device,
    )
    worker = PoolingWorker(
        load_pooling_engine(folder, options),
        name=names[0],
        max_queue_size=config.max_text_queue_size,
        request_timeout_s=config.request_timeout,
    )
    id, aliases = names[0], names[1:]
    if isinstance(spec, RerankSpec):
        prompts = PairPrompts(tokenizer, spec)
        return RerankModel(id=id, folder=folder, worker=worker, prompts=prompts, aliases=aliases)
    return EmbeddingModel(
        id=id,
        folder=folder,
        worker=worker,
        tokenizer=tokenizer,
        width=spec.output_width,
        aliases=aliases,
    )
