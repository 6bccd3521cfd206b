"""Engine folders into served models: each engine with its names, its worker and its text layer."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from engines.errors import EngineError
from engines.load import require_chat
from engines.load_pooling import require_pooling
from engines.machine import has_fast_int8
from engines.manifest import Manifest
from engines.pooling.spec import RerankSpec
from engines.store import EngineFolder
from server.chat_worker import ChatWorker
from server.config import ServerConfig
from server.image_worker import ImageWorker
from server.images.prompts import PromptEncoder
from server.names import served_names
from server.opening import Opening, open_engines
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


def load_models(
    folders: Sequence[EngineFolder],
    config: ServerConfig,
    openings: Sequence[Opening] | None = None,
) -> ModelRegistry:
    """Load every engine; `openings` are those of `open_engines`, where they were begun before.

    Raises:
        EngineError: Two engines share a name, a name stands for none, or one cannot be loaded.
    """
    names = served_names(folders, config.served_names)
    openings = open_engines(folders, config) if openings is None else openings
    models = [
        _load(opening, its_names, config)
        for opening, its_names in zip(openings, names, strict=True)
    ]
    return ModelRegistry(models, accept_any_model=config.accept_any_model)


def _load(opening: Opening, names: tuple[str, ...], config: ServerConfig) -> ServedModel:
    folder = opening.folder
    load = {"chat": _load_chat, "image": _load_image}.get(folder.manifest.kind, _load_pooling)
    try:
        model = load(opening, names, config)
    except Exception as error:
        # A runtime raises types of its own for a graph that it cannot read.
        logger.debug("cannot load %s", folder.path, exc_info=True)
        raise EngineError(
            f"the engine {folder.manifest.id!r} in {folder.path} cannot be loaded: {error}"
        ) from error
    logger.info("loaded %s in %.1f s", names[0], time.perf_counter() - opening.started)
    if adds_up_int8_slowly(folder.manifest):
        logger.warning(
            "%s has weights in 8 bits, which take longer to open and to multiply by than 7 on this "
            "processor, which has no VNNI: export it here, or with --reduce-range",
            names[0],
        )
    return model


def adds_up_int8_slowly(manifest: Manifest) -> bool:
    """Whether exact sums of its products need slower kernels on this processor."""
    layouts = [layout for node, layout in manifest.node_precision.items() if node != "embedding"]
    needs_8_bits = "int8" in layouts and not manifest.reduce_range
    return manifest.target == "ort-cpu" and needs_8_bits and not has_fast_int8()


def _load_chat(opening: Opening, names: tuple[str, ...], config: ServerConfig) -> ChatModel:
    folder = opening.folder
    spec = require_chat(folder)
    text = TextProcessor.load(folder.path)  # meanwhile the engine is opened
    grammars = GrammarCompiler(
        (folder.path / "tokenizer.json").read_text, spec.num_tokens, spec.eos_token_ids
    )
    worker = ChatWorker(
        opening.engine.result(),
        name=names[0],
        max_queue_size=config.max_queue_size,
        request_timeout_s=config.request_timeout,
    )
    return ChatModel(
        id=names[0],
        folder=folder,
        worker=worker,
        text=text,
        grammars=grammars,
        aliases=names[1:],
    )


def _load_image(opening: Opening, names: tuple[str, ...], config: ServerConfig) -> ImageModel:
    folder = opening.folder
    engine = opening.engine.result()
    worker = ImageWorker(
        engine,
        name=names[0],
        max_queue_size=config.max_image_queue_size,
        request_timeout_s=config.request_timeout,
    )
    prompts = PromptEncoder.load(folder.path, engine.spec)
    return ImageModel(id=names[0], folder=folder, worker=worker, prompts=prompts, aliases=names[1:])


def _load_pooling(opening: Opening, names: tuple[str, ...], config: ServerConfig) -> PoolingModel:
    folder = opening.folder
    spec = require_pooling(folder)
    tokenizer = Tokenizer.from_folder(folder.path, read_tokenizer_config(folder.path))
    worker = PoolingWorker(
        opening.engine.result(),
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
