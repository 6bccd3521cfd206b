"""Compile an opened checkpoint into the files of an engine, and describe them in a manifest."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import cast

import msgspec

from engines import __version__
from engines.manifest import ChatSpec, FileEntry, Manifest, Source, StateDtype, Target
from engines.reports import Smoothing
from export.cache.int8 import check_cache_precision, quantize_cache
from export.calibration import CALIBRATION_TEXTS
from export.checkpoint import Checkpoint
from export.errors import CheckpointError, ExportError
from export.graph import GraphBuilder
from export.precision import KVCacheLayout, KVCachePrecision, Layout, NodePrecision, Override
from export.progress import Progress
from export.quantized.tensors import QuantizedTensorFiles
from export.qwen.config import DecoderConfig, family_of, read_decoder_config
from export.qwen.decoder import DecoderEmitter, node_names, state_specs
from export.qwen.hybrid import unused_weights
from export.qwen.target import (
    CUDA_INT4_BLOCK_SIZE,
    GPU_PRECISION,
    GraphTarget,
    graph_target,
    node_precision,
    num_candidates,
)
from export.qwen.tensors import HEAD, check_tensors, expected_tensors, num_elements
from export.smoothing.groups import find_groups
from export.smoothing.smooth import check_smoothing, smooth
from export.tokenizer_files import Vocabulary, copy_tokenizer_files, read_vocabulary
from export.versions import built_with
from export.weights import WeightsFile, file_entry

GRAPH_FILE = "model.onnx"
DECODE_GRAPH_FILE = "decode.onnx"
WEIGHTS_FILE = "model.onnx.data"
# What `--optimize` asks for -> the precision of the graph and that of a second one for decode.
OPTIMIZED: Mapping[str, tuple[Layout, Layout | None]] = MappingProxyType(
    {"throughput": ("int8", None), "latency": ("int8", "int4"), "memory": ("int4", None)}
)
# One stream reads a sixth less in blocks of 128 than of 32. Prompts in int8 make up for the error.
DECODE_INT4_BLOCK_SIZE = 128
SPARE_ROWS = 1  # where slots that run idle write, behind the context


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileOptions:
    """How to compile.

    Attributes:
        engine_id: What clients call the engine.
        precision: The layout of most weights.
        overrides: Exceptions from it, by node.
        int4_block_size: Weights that share a scale; None chooses for each node.
        max_context: Tokens of prompt and answer; None takes what the model was made for.
        target: What will run the engine.
        kv_cache: How the cache is kept; auto takes blocks where the target has a kernel for them.
        kv_cache_precision: What keys and values are kept in; None is what is computed in.
        calibration_texts: What the model reads while those or its activations are measured.
        smooth: Whether outliers of activations are shifted into weights where int8 gains by it.
        decode_precision: The layout of most weights of a second graph that runs the steps of one
            token a sequence; None runs them on the first.
    """

    engine_id: str
    precision: Layout = "int8"
    overrides: tuple[Override, ...] = ()
    int4_block_size: int | None = None
    max_context: int | None = None
    target: Target = "ort-cpu"
    kv_cache: KVCacheLayout = "auto"
    kv_cache_precision: KVCachePrecision | None = None
    calibration_texts: tuple[str, ...] = CALIBRATION_TEXTS
    smooth: bool = False
    decode_precision: Layout | None = None


@dataclass(frozen=True, slots=True)
class CompilePlan:
    """A checkpoint and options that fit together; nothing has been written yet."""

    checkpoint: Checkpoint
    config: DecoderConfig
    vocabulary: Vocabulary
    options: CompileOptions
    max_context: int
    node_precision: NodePrecision
    graph_target: GraphTarget

    @property
    def graphs(self) -> dict[str, NodePrecision]:
        """File name -> the layouts of its nodes; all of them read the same weights file."""
        graphs = {GRAPH_FILE: self.node_precision}
        if self.options.decode_precision is not None:
            graphs[DECODE_GRAPH_FILE] = NodePrecision(
                self.options.decode_precision, self.options.overrides
            )
        return graphs


def plan_compilation(checkpoint: Checkpoint, options: CompileOptions) -> CompilePlan:
    """Check everything that can be checked before the first byte is written.

    Raises:
        CheckpointError: The checkpoint cannot be compiled.
        ExportError: An option does not fit the checkpoint.
    """
    config = read_decoder_config(checkpoint.config)
    renamed = family_of(checkpoint.config).rename(checkpoint.config, checkpoint.tensors)
    checkpoint = replace(checkpoint, tensors=renamed)
    check_tensors(config, renamed)
    vocabulary = read_vocabulary(checkpoint, config.vocab_size)
    max_context = _max_context(config, options)
    config = config.for_context(max_context)
    precision = node_precision(options.target, options.precision, options.overrides)
    precision.check(node_names(config))
    _check_block_size(checkpoint, options)
    _check_decode_precision(checkpoint, options)
    check_cache_precision(options.kv_cache_precision, options.target, config)
    if options.smooth:
        decode = options.decode_precision
        check_smoothing(options.precision, decode, options.target, config, renamed)
    return CompilePlan(
        checkpoint,
        config,
        vocabulary,
        options,
        max_context,
        precision,
        graph_target(options.target, options.precision, config, options.kv_cache),
    )


def compile_engine(plan: CompilePlan, engine_dir: Path, progress: Progress) -> Manifest:
    """Write all files of the engine but `engine.json`; return its manifest, not verified yet."""
    tensors = plan.checkpoint.tensors
    with progress.stage("hashing the checkpoint", tensors.num_bytes) as advance:
        source_hash = tensors.sha256(advance)
    copy_tokenizer_files(plan.checkpoint, engine_dir, plan.vocabulary)
    weights_entry = _write_graphs(plan, engine_dir, progress)
    spec = _chat_spec(plan)
    if plan.options.smooth:
        plan, report = _smooth(plan, spec, engine_dir, progress)
        spec = msgspec.structs.replace(spec, smoothing=report)
        if report.num_smoothed:
            weights_entry = _write_graphs(plan, engine_dir, progress)
    if plan.options.kv_cache_precision == "int8":
        with progress.stage("measuring the cache", None):
            texts, rotary_width = plan.options.calibration_texts, plan.config.rotary_width
            spec = quantize_cache(engine_dir, spec, plan.graphs, texts, rotary_width)
    files = {
        path.name: weights_entry if path.name == WEIGHTS_FILE else file_entry(path)
        for path in sorted(engine_dir.iterdir())
    }
    return Manifest(
        kind="chat",
        id=plan.options.engine_id,
        family=plan.config.family,
        created=int(time.time()),
        source=Source(
            checkpoint=plan.checkpoint.name,
            revision=plan.checkpoint.revision,
            sha256=source_hash,
            loras=plan.checkpoint.loras,
        ),
        precision=plan.options.precision,
        node_precision=plan.node_precision.describe(node_names(plan.config)),
        target=plan.options.target,
        built_with=built_with(),
        files=files,
        chat=spec,
        unused_weights=unused_weights(plan.checkpoint.tensors),
        stored_weights=_stored_weights(plan),
    )


def _smooth(
    plan: CompilePlan, spec: ChatSpec, engine_dir: Path, progress: Progress
) -> tuple[CompilePlan, Smoothing]:
    """The plan with smoothed tensors, by what the engine that was just written computes."""
    num_groups = len(find_groups(plan.config, plan.node_precision))
    with progress.stage("smoothing", num_groups) as advance:
        tensors, report = smooth(
            engine_dir,
            spec,
            plan.config,
            plan.node_precision,
            plan.checkpoint.tensors,
            plan.options.calibration_texts,
            advance,
        )
    return replace(plan, checkpoint=replace(plan.checkpoint, tensors=tensors)), report


def _write_graphs(plan: CompilePlan, engine_dir: Path, progress: Progress) -> FileEntry:
    num_parts = (plan.config.num_layers + 2) * len(plan.graphs)
    with (
        WeightsFile(engine_dir / WEIGHTS_FILE) as weights,
        progress.stage("compiling", num_parts) as advance,
    ):
        target = plan.graph_target
        block_size = plan.options.int4_block_size
        if target.target == "cuda":
            block_size = block_size or CUDA_INT4_BLOCK_SIZE
        for file_name, precision in plan.graphs.items():
            if file_name == DECODE_GRAPH_FILE:
                block_size = block_size or DECODE_INT4_BLOCK_SIZE
            graph = GraphBuilder(weights, dtype=target.dtype, opset=target.opset)
            DecoderEmitter(
                plan.config,
                plan.checkpoint.tensors,
                graph,
                precision,
                block_size,
                plan.max_context + SPARE_ROWS,
                target,
                plan.vocabulary.num_tokens,
            ).emit(lambda part: advance(1, part))
            graph.save(engine_dir / file_name, __version__)
        return weights.finish()


def _chat_spec(plan: CompilePlan) -> ChatSpec:
    return ChatSpec(
        graph=GRAPH_FILE,
        vocab_size=plan.config.vocab_size,
        num_tokens=plan.vocabulary.num_tokens,
        max_context=plan.max_context,
        spare_rows=SPARE_ROWS,
        states=state_specs(plan.config, cast(StateDtype, plan.graph_target.dtype)),
        eos_token_ids=plan.vocabulary.eos_token_ids,
        num_parameters=num_elements(expected_tensors(plan.config)),
        kv_cache=plan.graph_target.cache,
        reads_positions=plan.graph_target.reads_positions(plan.config),
        num_candidates=num_candidates(plan.graph_target, plan.vocabulary.num_tokens),
        decode_graph=DECODE_GRAPH_FILE if plan.options.decode_precision else None,
        decode_precision=plan.options.decode_precision,
    )


def default_precision(
    checkpoint: Checkpoint, target: Target = "ort-cpu"
) -> tuple[Layout, tuple[Override, ...]]:
    """What an export takes that asks for no precision: what a quantized checkpoint has, or int8.

    A head that such a checkpoint left whole is not cut down to int4. On a GPU it is bf16, or the
    int4 that the checkpoint has where there are kernels for it.
    """
    tensors = checkpoint.tensors
    if target != "ort-cpu":
        is_int4 = isinstance(tensors, QuantizedTensorFiles) and tensors.bits == 4
        return ("int4" if is_int4 and target == "cuda" else GPU_PRECISION), ()
    if not isinstance(tensors, QuantizedTensorFiles) or tensors.bits == 8:
        return "int8", ()
    return "int4", () if tensors.bits_of(HEAD) else (Override("head", "int8"),)


def _stored_weights(plan: CompilePlan) -> str | None:
    tensors = plan.checkpoint.tensors
    if not isinstance(tensors, QuantizedTensorFiles):
        return None
    return tensors.conversion(plan.options.precision)


def _check_block_size(checkpoint: Checkpoint, options: CompileOptions) -> None:
    tensors = checkpoint.tensors
    if options.int4_block_size is None or not isinstance(tensors, QuantizedTensorFiles):
        return
    if tensors.bits == 4 and options.precision == "int4":
        raise ExportError(
            f"--int4-block-size is {options.int4_block_size}, but the checkpoint's weights are "
            f"kept as they are ({tensors.description}): leave it out"
        )


def _check_decode_precision(checkpoint: Checkpoint, options: CompileOptions) -> None:
    tensors = checkpoint.tensors
    if options.decode_precision is not None and isinstance(tensors, QuantizedTensorFiles):
        raise ExportError(
            f"--optimize latency holds the weights in {options.precision} and in "
            f"{options.decode_precision}, but the checkpoint has them quantized "
            f"({tensors.description}): leave it out"
        )


def _max_context(config: DecoderConfig, options: CompileOptions) -> int:
    longest = config.longest_context
    max_context = config.default_context if options.max_context is None else options.max_context
    if max_context > longest:
        raise ExportError(
            f"--max-context {max_context} is more than the {longest} positions that the model "
            "was made for"
        )
    if config.sliding_window is not None and max_context > config.sliding_window:
        raise CheckpointError(
            f"the model attends through a sliding window of {config.sliding_window} tokens, which "
            f"is not supported: add --max-context {config.sliding_window} or less"
        )
    return max_context
