"""Compile an opened checkpoint into the files of an engine, and describe them in a manifest."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import cast

import msgspec

from engines import __version__
from engines.manifest import ChatSpec, FileEntry, Manifest, Source, StateDtype
from engines.reports import Smoothing
from export.cache.int8 import quantize_cache
from export.compile_plan import DECODE_GRAPH_FILE, GRAPH_FILE, CompilePlan
from export.graph import GraphBuilder
from export.progress import Progress
from export.quantized.tensors import QuantizedTensorFiles
from export.qwen.decoder import DecoderEmitter, node_names, state_specs
from export.qwen.hybrid import unused_weights
from export.qwen.target import CUDA_INT4_BLOCK_SIZE, num_candidates
from export.qwen.tensors import expected_tensors, num_elements
from export.smoothing.groups import find_groups
from export.smoothing.smooth import smooth
from export.tokenizer_files import copy_tokenizer_files
from export.versions import built_with
from export.weights import WeightsFile, file_entry

WEIGHTS_FILE = "model.onnx.data"
# One stream reads a sixth less in blocks of 128 than of 32. Prompts in int8 make up for the error.
DECODE_INT4_BLOCK_SIZE = 128
SPARE_ROWS = 1  # where slots that run idle write, behind the context


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
        reduce_range=plan.reduces_range,
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


def _stored_weights(plan: CompilePlan) -> str | None:
    tensors = plan.checkpoint.tensors
    if not isinstance(tensors, QuantizedTensorFiles):
        return None
    return tensors.conversion(plan.options.precision)
