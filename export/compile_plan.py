"""Options and checkpoint that fit together: everything that is checked before a byte is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from engines.manifest import Target
from export.cache.int8 import check_cache_precision
from export.calibration import CALIBRATION_TEXTS
from export.checkpoint import Checkpoint
from export.errors import CheckpointError, ExportError
from export.precision import (
    INT8_MAX,
    REDUCED_INT8_MAX,
    KVCacheLayout,
    KVCachePrecision,
    Layout,
    NodePrecision,
    Override,
)
from export.quantized.tensors import QuantizedTensorFiles
from export.qwen.config import DecoderConfig, family_of, read_decoder_config
from export.qwen.decoder import node_names
from export.qwen.target import GPU_PRECISION, GraphTarget, graph_target, node_precision
from export.qwen.tensors import HEAD, check_tensors
from export.smoothing.smooth import check_smoothing
from export.tokenizer_files import Vocabulary, read_vocabulary

GRAPH_FILE = "model.onnx"
DECODE_GRAPH_FILE = "decode.onnx"
# What `--optimize` asks for -> the precision of the graph and that of a second one for decode.
OPTIMIZED: Mapping[str, tuple[Layout, Layout | None]] = MappingProxyType(
    {"throughput": ("int8", None), "latency": ("int8", "int4"), "memory": ("int4", None)}
)


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
        reduce_range: Whether weights in int8 fill 7 bits only, as processors without VNNI want it;
            those that a checkpoint has in 8 bits stay as they are.
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
    reduce_range: bool = False
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
    def reduces_range(self) -> bool:
        """Whether there are matrices in int8 and all that were written fill 7 bits only."""
        tensors = self.checkpoint.tensors
        keeps_bytes = isinstance(tensors, QuantizedTensorFiles) and any(
            tensors.bits_of(name) == 8 for name in tensors.kept
        )
        has_int8 = any(
            precision.layout(node) == "int8"
            for precision in self.graphs.values()
            for node in node_names(self.config)
            if node != "embedding"  # of which rows are read, and nothing is added up
        )
        return self.options.reduce_range and has_int8 and not keeps_bytes

    @property
    def graphs(self) -> dict[str, NodePrecision]:
        """File name -> the layouts of its nodes; all of them read the same weights file."""
        graphs = {GRAPH_FILE: self.node_precision}
        if self.options.decode_precision is not None:
            graphs[DECODE_GRAPH_FILE] = replace(
                self.node_precision, precision=self.options.decode_precision
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
    precision = node_precision(
        options.target,
        options.precision,
        options.overrides,
        REDUCED_INT8_MAX if options.reduce_range else INT8_MAX,
    )
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
