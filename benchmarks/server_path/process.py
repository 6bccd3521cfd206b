"""The server's process of `server-path`: the whole server around a `NullEngine`, on one core.

python -m benchmarks.server_path.process ENGINE_FOLDER PORT STREAMS CORE [PROFILE]
"""

from __future__ import annotations

import cProfile
import os
import sys
from pathlib import Path

import numpy as np

from benchmarks.server_path.null_engine import NullEngine, NullWorker
from engines.load import require_chat
from engines.store import find_engines
from server.config import ServerConfig
from server.listener import listen
from server.process import serve
from server.registry import ChatModel, ModelRegistry
from server.text.grammar import GrammarCompiler
from server.text.processor import TextProcessor

_NUM_TOKENS = 4096  # that answers are made of
_MAX_CONTEXT = 1 << 20


def main() -> None:
    folder_path, port, streams, core, *profile = sys.argv[1:]
    if core != "-" and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core)})
    (folder,) = find_engines(Path(folder_path))
    spec = require_chat(folder)
    text = TextProcessor.load(folder.path)
    token_ids = np.random.default_rng(0).integers(spec.num_tokens, size=8 * _NUM_TOKENS).tolist()
    special = {*spec.eos_token_ids}
    ordinary = [t for t in token_ids if t not in special and _is_text(text, t)][:_NUM_TOKENS]
    engine = NullEngine(ordinary, int(streams), _MAX_CONTEXT)
    grammars = GrammarCompiler(
        (folder.path / "tokenizer.json").read_text, spec.num_tokens, spec.eos_token_ids
    )
    model = ChatModel(
        id="null",
        folder=folder,
        worker=NullWorker(engine, name="null", max_queue_size=int(streams)),
        text=text,
        grammars=grammars,
    )
    config = ServerConfig(port=int(port), log_level="warning")
    listener = listen(config.host, config.port)
    profiler = cProfile.Profile() if profile else None
    if profiler is not None:
        profiler.enable()
    try:
        serve(ModelRegistry([model]), config, (), listener)
    finally:
        if profiler is not None:
            profiler.disable()
            profiler.dump_stats(profile[0])


def _is_text(text: TextProcessor, token_id: int) -> bool:
    """Whether a token is whole characters, so that it is an event of its own."""
    decoded = text.decode([token_id])
    return bool(decoded) and "\ufffd" not in decoded


if __name__ == "__main__":
    main()
