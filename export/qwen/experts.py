"""Mixtures of experts: a router, and ONNX Runtime's operators for the experts it chooses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.errors import ExportError
from export.graph import CONTRIB, GraphBuilder
from export.precision import LayoutChooser
from export.quantize import (
    INT4_BLOCK_SIZES,
    choose_block_size,
    quantize_blocks,
    quantize_blocks_int8,
)
from export.qwen.config import ExpertsConfig
from export.safetensors_file import FloatArray
from export.tensor_files import TensorFiles

# silu(gate) * up, with the rows of both alternating.
_SWIGLU = {
    "activation_type": "swiglu",
    "swiglu_fusion": 1,
    "activation_alpha": 1.0,
    "activation_beta": 0.0,
}


GPU_BLOCK_SIZES = (64, 128)  # of weights that share a scale, in the kernels for CUDA


class ExpertsEmitter:
    """Emits the routed experts of a layer, which are read one at a time.

    Args:
        config: How many there are and how they are chosen; None in a decoder without experts.
        graph: Takes nodes and weights.
        tensors: The checkpoint's tensors.
        precision: The layout of each node.
        int4_block_size: Weights that share a scale; None chooses for each layer.
        on_gpu: Whether the operators are those of ONNX Runtime's CUDA provider, whose blocks are of
            64 or 128 weights.
    """

    def __init__(
        self,
        config: ExpertsConfig | None,
        graph: GraphBuilder,
        tensors: TensorFiles,
        precision: LayoutChooser,
        int4_block_size: int | None,
        *,
        on_gpu: bool = False,
    ) -> None:
        self._config = config
        self._graph = graph
        self._tensors = tensors
        self._precision = precision
        self._int4_block_size = int4_block_size
        self._on_gpu = on_gpu

    def emit(self, x: ir.Value, node: str, tensor: str) -> ir.Value:
        """The chosen experts' answers by the router's weights, [..., hidden] -> [..., hidden]."""
        assert self._config is not None
        graph, config = self._graph, self._config
        logits = self.logits(x, f"{node}.router", f"{tensor}.gate")  # [..., experts]
        rows = graph.constant("router_rows", np.array([-1, config.num_experts], np.int64))
        flat = graph.op("Reshape", [logits, rows], f"{node}.router.flat")  # [tokens, experts]
        y = self._experts(x, flat, f"{node}.experts", tensor)
        if config.normalizes:
            return y
        # The operators for quantized experts weigh the chosen ones so that their weights add up to
        # 1, whatever they are told. The router's own add up to less.
        total = self._share_of_chosen(logits, node)
        return graph.op("Mul", [y, total], f"{node}.unnormalized")

    def logits(self, x: ir.Value, node: str, tensor: str) -> ir.Value:
        """A small matrix that is not quantized, since what it decides is not gradual."""
        weight = self._graph.weight(f"{node}.weight", self._tensors.read(f"{tensor}.weight"))
        return self._graph.op(
            "FusedMatMul", [x, weight], f"{node}.matmul", domain=CONTRIB, transB=1
        )

    def _share_of_chosen(self, logits: ir.Value, node: str) -> ir.Value:
        """The sum of the probabilities of the chosen experts, [..., 1]."""
        assert self._config is not None
        graph = self._graph
        if graph.dtype != "float32":
            logits = graph.op("Cast", [logits], f"{node}.router.wide", to=ir.DataType.FLOAT.value)
        probabilities = graph.op("Softmax", [logits], f"{node}.router.probabilities", axis=-1)
        k = graph.constant("experts_per_token", np.array([self._config.per_token], np.int64))
        chosen, _ = graph.ops(
            "TopK",
            [probabilities, k],
            [f"{node}.router.chosen", f"{node}.router.chosen_ids"],
            axis=-1,
            sorted=0,
        )
        last_axis = graph.constant("last_axis", np.array([-1], np.int64))
        total = graph.op("ReduceSum", [chosen, last_axis], f"{node}.router.total", keepdims=1)
        return graph.as_computed(total, f"{node}.router.total_narrow")

    def _experts(self, x: ir.Value, logits: ir.Value, node: str, tensor: str) -> ir.Value:
        assert self._config is not None
        layout = self._precision.layout(node)
        attributes: dict[str, Any] = _SWIGLU | {
            "k": self._config.per_token,
            "normalize_routing_weights": 1,
        }
        if layout not in ("int8", "int4"):
            weights = [
                self._graph.dense_in_blocks(
                    f"{node}.{name}", self._shape(name, tensor), self._matrices(name, tensor)
                )
                for name in ("fc1", "fc2")
            ]
            inputs = [x, logits, weights[0], None, weights[1]]
            return self._graph.op("MoE", inputs, node, domain=CONTRIB, **attributes)
        block_size = self._block_size(layout, tensor)
        fc1, fc1_scale = self._quantized("fc1", layout, block_size, node, tensor)
        fc2, fc2_scale = self._quantized("fc2", layout, block_size, node, tensor)
        if self._on_gpu:
            attributes["weights_prepacked"] = 0  # the provider brings them into its own order
        else:
            attributes["accuracy_level"] = 4  # int8 products; else every call expands the weights
        return self._graph.op(
            "QMoE",
            [x, logits, fc1, fc1_scale, None, fc2, fc2_scale],
            node,
            domain=CONTRIB,
            **attributes,
            expert_weight_bits=4 if layout == "int4" else 8,
            block_size=block_size,
        )

    def _quantized(
        self, name: str, layout: str, block_size: int, node: str, tensor: str
    ) -> tuple[ir.Value, ir.Value]:
        """One matrix of all experts, and its scales; beside these one expert is in memory."""
        num_experts, num_rows, num_columns = self._shape(name, tensor)
        scales = np.empty((num_experts, num_rows, num_columns // block_size), np.float32)

        def quantized() -> Iterator[NDArray[np.uint8]]:
            for expert, matrix in enumerate(self._matrices(name, tensor)):
                if layout == "int4":
                    packed, scales[expert] = quantize_blocks(matrix, block_size)
                else:
                    packed, scales[expert] = quantize_blocks_int8(matrix, block_size)
                yield packed

        width = num_columns // 2 if layout == "int4" else num_columns
        weight = self._graph.weight_in_blocks(
            f"{node}.{name}", (num_experts, num_rows, width), quantized(), np.uint8
        )
        return weight, self._graph.weight(f"{node}.{name}.scale", scales)

    def _block_size(self, layout: str, tensor: str) -> int:
        """One for both matrices; it has to divide their widths.

        Raises:
            ExportError: None that the kernels take does.
        """
        widths = [self._shape(name, tensor)[2] for name in ("fc1", "fc2")]
        sizes = GPU_BLOCK_SIZES if self._on_gpu else INT4_BLOCK_SIZES
        fits = [size for size in sizes if all(width % size == 0 for width in widths)]
        if not fits:
            raise ExportError(
                f"experts of {widths[0]} and {widths[1]} columns cannot be int4 for cuda, whose "
                f"kernels take blocks of {' or '.join(map(str, sizes))}: choose --precision bf16"
            )
        if self._on_gpu:
            return fits[0]
        largest = fits[-1]
        if self._int4_block_size is not None and layout == "int4":
            return min(self._int4_block_size, largest)
        chosen = (choose_block_size(next(self._matrices(name, tensor))) for name in ("fc1", "fc2"))
        return min(largest, *chosen) if layout == "int4" else largest

    def _shape(self, name: str, tensor: str) -> tuple[int, int, int]:
        assert self._config is not None
        hidden = self._tensors.shape(f"{tensor}.gate.weight")[1]
        width = self._config.intermediate_size
        rows = (2 * width, hidden) if name == "fc1" else (hidden, width)
        return self._config.num_experts, *rows

    def _matrices(self, name: str, tensor: str) -> Iterator[FloatArray]:
        """One expert's matrix after the other: gate and up in alternating rows, or down."""
        _, num_rows, num_columns = self._shape(name, tensor)
        assert self._config is not None
        for expert in range(self._config.num_experts):
            at = f"{tensor}.experts.{expert}"
            if name == "fc2":
                yield self._tensors.read(f"{at}.down_proj.weight")
                continue
            matrix = np.empty((num_rows, num_columns), np.float32)
            matrix[0::2] = self._tensors.read(f"{at}.gate_proj.weight")
            matrix[1::2] = self._tensors.read(f"{at}.up_proj.weight")
            yield matrix
