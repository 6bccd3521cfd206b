"""Compile a checkpoint of embeddings or relevance: the chat decoder, with another end."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from engines import __version__
from engines.manifest import FileEntry, Manifest, Source
from engines.pooling.spec import CacheSpec, EmbeddingSpec, RerankSpec
from export.checkpoint import Checkpoint
from export.compile import WEIGHTS_FILE
from export.compile_plan import GRAPH_FILE, CompileOptions, CompilePlan, plan_compilation
from export.errors import CheckpointError
from export.graph import GraphBuilder
from export.pooling.reranker import RerankPrompt, read_rerank_prompt
from export.pooling.task import HEADLESS, Task, check_pooling
from export.progress import Progress
from export.qwen.decoder import DecoderEmitter, node_names
from export.qwen.tensors import HEAD, expected_tensors, num_elements
from export.tensor_files import TensorFiles
from export.tokenizer_files import copy_tokenizer_files
from export.versions import built_with
from export.weights import WeightsFile, file_entry

_PREFIX = "model."  # of tensors; sentence-transformers saves the decoder without it


@dataclass(frozen=True, slots=True)
class PoolingPlan:
    """A checkpoint and options that fit together; nothing has been written yet.

    Attributes:
        decoder: The plan of the decoder, without its head.
        prompt: How a reranker is asked; None embeds.
    """

    decoder: CompilePlan
    prompt: RerankPrompt | None


def plan_pooling(checkpoint: Checkpoint, options: CompileOptions, task: Task) -> PoolingPlan:
    """Check everything that can be checked before the first byte is written.

    Raises:
        CheckpointError: The checkpoint cannot be compiled.
        ExportError: An option does not fit the checkpoint.
    """
    checkpoint = as_decoder(checkpoint, needs_head=task == "rerank")
    if task == "rerank":
        return PoolingPlan(
            plan_compilation(checkpoint, options), read_rerank_prompt(checkpoint.folder)
        )
    check_pooling(checkpoint.folder)
    return PoolingPlan(plan_compilation(checkpoint, options), None)


def as_decoder(checkpoint: Checkpoint, *, needs_head: bool) -> Checkpoint:
    """The same checkpoint under the names that a chat decoder has.

    Raises:
        CheckpointError: It is of another architecture, or its tokens see what follows them.
    """
    config = dict(checkpoint.config)
    if config.get("is_causal") is False or config.get("use_bidirectional_attention"):
        raise CheckpointError(
            "the model's tokens attend to those that follow them, but only causal ones are "
            "supported"
        )
    names = [HEADLESS.get(str(name), str(name)) for name in config.get("architectures") or ()]
    if not set(names) & set(HEADLESS.values()):
        raise CheckpointError(
            f"the checkpoint's architecture is {', '.join(names) or 'none'}, but only "
            f"{' and '.join(HEADLESS.values())} can be compiled to embed or rank texts"
        )
    config["architectures"] = names
    if not needs_head:
        config["tie_word_embeddings"] = True  # there may be no head, and none is read
    tensors = checkpoint.tensors
    if not any(name.startswith(_PREFIX) for name in tensors):
        renamed = {name if name == HEAD else _PREFIX + name: name for name in tensors}
        tensors = TensorFiles({new: tensors.stored(name) for new, name in renamed.items()})
    return replace(checkpoint, config=config, tensors=tensors)


def compile_pooling_engine(plan: PoolingPlan, engine_dir: Path, progress: Progress) -> Manifest:
    """Write all files of the engine but `engine.json`; return its manifest, not verified yet."""
    decoder = plan.decoder
    tensors = decoder.checkpoint.tensors
    with progress.stage("hashing the checkpoint", tensors.num_bytes) as advance:
        source_hash = tensors.sha256(advance)
    copy_tokenizer_files(decoder.checkpoint, engine_dir, decoder.vocabulary)
    weights_entry = _write_graph(plan, engine_dir, progress)
    files = {
        path.name: weights_entry if path.name == WEIGHTS_FILE else file_entry(path)
        for path in sorted(engine_dir.iterdir())
    }
    spec = _spec(plan)
    nodes = [node for node in node_names(decoder.config) if node != "head"]
    precision = decoder.node_precision.describe(nodes)
    del precision["head"]
    if plan.prompt is not None:
        precision["head"] = "fp32"  # of two rows
    return Manifest(
        kind="embedding" if isinstance(spec, EmbeddingSpec) else "rerank",
        id=decoder.options.engine_id,
        family=decoder.config.family,
        created=int(time.time()),
        source=Source(
            checkpoint=decoder.checkpoint.name,
            revision=decoder.checkpoint.revision,
            sha256=source_hash,
        ),
        precision=decoder.options.precision,
        node_precision=precision,
        reduce_range=decoder.reduces_range,
        target="ort-cpu",
        built_with=built_with(),
        files=files,
        embedding=spec if isinstance(spec, EmbeddingSpec) else None,
        rerank=spec if isinstance(spec, RerankSpec) else None,
    )


def _write_graph(plan: PoolingPlan, engine_dir: Path, progress: Progress) -> FileEntry:
    decoder, prompt = plan.decoder, plan.prompt
    with (
        WeightsFile(engine_dir / WEIGHTS_FILE) as weights,
        progress.stage("compiling", decoder.config.num_layers + 2) as advance,
    ):
        graph = GraphBuilder(weights)
        DecoderEmitter(
            decoder.config,
            decoder.checkpoint.tensors,
            graph,
            decoder.node_precision,
            decoder.options.int4_block_size,
            decoder.max_context,
            head_rows=() if prompt is None else (prompt.false_token_id, prompt.true_token_id),
        ).emit(lambda part: advance(1, part))
        graph.save(engine_dir / GRAPH_FILE, __version__)
        return weights.finish()


def _spec(plan: PoolingPlan) -> EmbeddingSpec | RerankSpec:
    decoder, prompt = plan.decoder, plan.prompt
    config = decoder.config
    cache = CacheSpec(
        num_layers=config.num_layers, heads=config.num_kv_heads, width=config.head_dim
    )
    num_tokens, max_context = decoder.vocabulary.num_tokens, decoder.max_context
    num_parameters = num_elements(expected_tensors(config))
    if prompt is None:
        return EmbeddingSpec(
            graph=GRAPH_FILE,
            output="hidden_states",
            output_width=config.hidden_size,
            num_tokens=num_tokens,
            max_context=max_context,
            cache=cache,
            num_parameters=num_parameters,
        )
    return RerankSpec(
        graph=GRAPH_FILE,
        output="logits",
        output_width=2,
        num_tokens=num_tokens,
        max_context=max_context,
        cache=cache,
        num_parameters=num_parameters,
        prefix=prompt.prefix,
        body=prompt.body,
        suffix=prompt.suffix,
        instruction=prompt.instruction,
        false_token_id=prompt.false_token_id,
        true_token_id=prompt.true_token_id,
    )
