"""What a decoder's graph is drawn for: the type of its numbers, its operators and its cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engines.manifest import Precision, Target
from export.errors import ExportError
from export.graph import OPSET, STANDARD_OPSET
from export.precision import INT8_MAX, KVCacheLayout, Layout, NodePrecision, Override
from export.qwen.config import DecoderConfig

NUM_CANDIDATES = 256  # of a row, which a GPU gives instead of the whole row
GPU_PRECISION: Layout = "bf16"  # of an engine for a GPU, where nobody says
CUDA_INT4_BLOCK_SIZE = 32  # what every build of the CUDA kernels takes
_PAGED_HEAD_DIM = 256  # the widest that the kernels of PagedAttention take

_DTYPES: dict[Layout, str] = {
    "fp32": "float32",
    "int8": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
}
PRECISIONS: dict[Target, tuple[Layout, ...]] = {
    "ort-cpu": ("int8", "int4", "fp32"),
    "cuda": ("bf16", "fp16", "int4"),
    "tensorrt": ("bf16", "fp16", "fp32"),
}


@dataclass(frozen=True, slots=True)
class GraphTarget:
    """How a graph is drawn.

    Attributes:
        target: What will run it.
        dtype: What activations and caches are.
        cache: `slots` of a sequence each, or `blocks` that sequences share.
    """

    target: Target = "ort-cpu"
    dtype: str = "float32"
    cache: Literal["slots", "blocks"] = "slots"

    @property
    def is_standard(self) -> bool:
        """Whether only operators of the ONNX standard may be used."""
        return self.target == "tensorrt"

    @property
    def opset(self) -> int:
        return STANDARD_OPSET if self.is_standard else OPSET

    @property
    def gives_candidates(self) -> bool:
        """Whether the likeliest tokens of each row are an output of their own."""
        return self.target != "ort-cpu"

    def reads_positions(self, config: DecoderConfig) -> bool:
        """Whether a graph for CUDA is told where tokens stand.

        Only queries that are scaled need it, and it would have to be computed from shapes, which
        that provider does on the CPU.
        """
        return self.target == "cuda" and config.logn_length is not None


def num_candidates(target: GraphTarget, num_tokens: int) -> int:
    """The likeliest tokens that the graph gives of a row; 0 where it gives rows alone."""
    return min(NUM_CANDIDATES, num_tokens) if target.gives_candidates else 0


def node_precision(
    target: Target,
    precision: Layout,
    overrides: tuple[Override, ...],
    int8_max: int = INT8_MAX,
) -> NodePrecision:
    """The layouts of all nodes for a target, and the largest integer of those in int8.

    Raises:
        ExportError: The target has no kernels for a precision that is asked for.
    """
    allowed = PRECISIONS[target]
    if precision not in allowed:
        raise ExportError(
            f"--precision is {precision}, but the target {target} computes in "
            f"{', '.join(sorted(allowed))}: choose one of these"
        )
    if target == "ort-cpu":
        layouts: tuple[Layout, ...] = allowed
    elif target == "cuda":
        layouts = ("int4", _dense_layout(precision))
    else:
        layouts = (precision,)
    for override in overrides:
        if override.layout not in layouts:
            raise ExportError(
                f"--override {override.pattern}={override.layout} is not possible in {precision} "
                f"for {target}: a node can be {' or '.join(layouts)}"
            )
    return NodePrecision(precision, overrides, for_gpu=target != "ort-cpu", int8_max=int8_max)


def graph_target(
    target: Target, precision: Precision, config: DecoderConfig, kv_cache: KVCacheLayout
) -> GraphTarget:
    """How the graph of a decoder is drawn.

    Raises:
        ExportError: The target cannot keep the cache as asked.
    """
    if target != "ort-cpu" and config.delta_net is not None:
        raise ExportError(
            f"the model has Gated DeltaNet layers, which engines for {target} lack: leave out "
            "--target"
        )
    if target == "tensorrt" and config.experts is not None:
        raise ExportError(
            "--target is tensorrt, but mixtures of experts are compiled for ort-cpu and cuda: ONNX "
            "has no operator for them"
        )
    if target != "cuda":
        if kv_cache == "blocks":
            raise ExportError(f"--kv-cache is blocks, but the target {target} keeps slots")
        dtype = "float32" if target == "ort-cpu" else _DTYPES[_dense_layout(precision)]
        return GraphTarget(target, dtype)
    can_page = config.head_dim <= _PAGED_HEAD_DIM
    if kv_cache == "blocks" and not can_page:
        raise ExportError(
            f"--kv-cache is blocks, but heads are {config.head_dim} wide and PagedAttention takes "
            f"{_PAGED_HEAD_DIM} at the most: leave it out"
        )
    cache: Literal["slots", "blocks"] = "blocks" if can_page and kv_cache != "slots" else "slots"
    return GraphTarget(target, _DTYPES[_dense_layout(precision)], cache)


def _dense_layout(precision: Precision) -> Layout:
    """What is not quantized, in an engine of a precision for a GPU."""
    return "bf16" if precision in ("int4", "int8") else precision
