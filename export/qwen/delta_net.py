"""Gated DeltaNet layers by ONNX Runtime's operators: a state of fixed size instead of a cache.

For each head, with a decay g <= 0 and a rate b of every token, S starting at zero:

    S = exp(g) S + b k (v - exp(g) S^T k)^T,   output = S^T q / sqrt(key_width)
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from engines.manifest import StateSpec
from export.graph import CONTRIB, GraphBuilder
from export.linear import LinearEmitter, Projection
from export.qwen.hybrid import DeltaNetConfig
from export.safetensors_file import FloatArray
from export.tensor_files import TensorFiles

_NORM_EPSILON = 1e-6  # of the L2 norm of queries and keys


def delta_net_states(config: DeltaNetConfig, layer: int) -> tuple[StateSpec, StateSpec]:
    """What a layer keeps of the tokens before: the convolution's last inputs, and S."""
    return (
        StateSpec(
            input=f"past_convolution.{layer}",
            output=f"present_convolution.{layer}",
            heads=config.convolved_width,
            rows=1,
            width=config.kernel_size - 1,
            grows=False,
            truncatable=False,
        ),
        StateSpec(
            input=f"past_recurrence.{layer}",
            output=f"present_recurrence.{layer}",
            heads=config.num_value_heads,
            rows=config.key_width,
            width=config.value_width,
            grows=False,
            truncatable=False,
        ),
    )


class DeltaNetEmitter:
    """Emits one layer: projections, convolution, recurrence, gated norm."""

    def __init__(
        self,
        config: DeltaNetConfig,
        graph: GraphBuilder,
        linear: LinearEmitter,
        tensors: TensorFiles,
        rms_norm_eps: float,
    ) -> None:
        self._config = config
        self._graph = graph
        self._linear = linear
        self._tensors = tensors
        self._rms_norm_eps = rms_norm_eps

    def emit(self, x: ir.Value, layer: int) -> ir.Value:
        """What the heads of one layer read, [n, S, hidden] -> [n, S, values_width]."""
        config, graph = self._config, self._graph
        node, module = f"layers.{layer}.attention", f"model.layers.{layer}.linear_attn"
        mixed, gate = self._project(x, node, module)
        queries_keys, values = graph.ops(
            "Split",
            [self._convolve(mixed, layer, node, module), self._sizes()],
            [f"{node}.queries_keys", f"{node}.values"],
            axis=-1,
        )
        queries, keys = self._normalize(queries_keys, node)
        decay, rate = self._gates(x, node, module)
        state = delta_net_states(config, layer)[1]
        heads, present = graph.ops(
            "LinearAttention",
            [queries, keys, values, self._past(state), decay, rate],
            [f"{node}.recurrence", f"{node}.present_recurrence"],
            domain=CONTRIB,
            q_num_heads=config.num_key_heads,
            kv_num_heads=config.num_value_heads,
            update_rule="gated_delta",
        )
        self._present(present, state)
        return self._gate(heads, gate, node, module)

    def _project(self, x: ir.Value, node: str, module: str) -> tuple[ir.Value, ir.Value]:
        """Queries, keys and values side by side, and the gate of the values, each [n, S, width]."""
        if not self._config.packs_projections:
            mixed = Projection(f"{node}.qkv", (f"{module}.in_proj_qkv.weight",))
            gate = Projection(f"{node}.gate", (f"{module}.in_proj_z.weight",))
            return self._linear.emit(x, mixed), self._linear.emit(x, gate)
        config, graph = self._config, self._graph
        packed = self._linear.emit(
            x, Projection(f"{node}.qkvg", (f"{module}.in_proj_qkvz.weight",))
        )
        values = config.values_width // config.num_key_heads
        sizes = np.array([config.key_width, config.key_width, values, values], np.int64)
        by_head = graph.constant("by_key_head", np.array([0, 0, -1, sizes.sum()], np.int64))
        parts = graph.ops(
            "Split",
            [
                graph.op("Reshape", [packed, by_head], f"{node}.by_key_head"),
                graph.constant("sizes_in_key_head", sizes),
            ],
            [f"{node}.{part}" for part in ("q", "k", "v", "g")],
            axis=-1,
        )
        *mixed_parts, gate_value = (self._flat(part, f"{part.name}_flat") for part in parts)
        return graph.op("Concat", list(mixed_parts), f"{node}.mixed", axis=-1), gate_value

    def _convolve(self, x: ir.Value, layer: int, node: str, module: str) -> ir.Value:
        """Each channel with its own last values, then SiLU; [n, S, width] in and out.

        Behind transpositions, and with SiLU by itself, the operator takes a fraction of its time.
        """
        graph, state = self._graph, delta_net_states(self._config, layer)[0]
        rows = graph.constant("convolution_rows", np.array([0, 0, -1], np.int64))
        weight = self._tensors.read(f"{module}.conv1d.weight")  # [width, 1, kernel]
        convolved, present = graph.ops(
            "CausalConvWithState",
            [
                graph.op("Transpose", [x], f"{node}.channels", perm=[0, 2, 1]),  # [n, width, S]
                graph.weight(f"{node}.convolution.weight", weight),
                None,
                graph.op("Reshape", [self._past(state), rows], f"{node}.last_inputs"),
            ],
            [f"{node}.convolution", f"{node}.next_inputs"],
            domain=CONTRIB,
        )
        # The state has four axes like all others.
        apart = graph.constant("convolution_state", np.array([0, 0, 1, -1], np.int64))
        self._present(graph.op("Reshape", [present, apart], f"{node}.present_convolution"), state)
        by_token = graph.op("Transpose", [convolved], f"{node}.convolved", perm=[0, 2, 1])
        return self._silu(by_token, f"{node}.convolution_silu")

    def _gate(self, heads: ir.Value, gate: ir.Value, node: str, module: str) -> ir.Value:
        """Each head normalized, times SiLU of its gate; as plain operators a fraction of the time
        of `GatedRMSNorm`.
        """
        config, graph = self._config, self._graph
        by_head = graph.constant("by_value", np.array([0, 0, -1, config.value_width], np.int64))
        weight = graph.weight(f"{node}.norm.weight", self._tensors.read(f"{module}.norm.weight"))
        normed = graph.op(
            "SimplifiedLayerNormalization",
            [graph.op("Reshape", [heads, by_head], f"{node}.values_by_head"), weight],
            f"{node}.norm",
            axis=-1,
            epsilon=self._rms_norm_eps,
        )
        opened = self._silu(gate, f"{node}.gate_silu")
        return graph.op("Mul", [self._flat(normed, f"{node}.norm_flat"), opened], f"{node}.heads")

    def _silu(self, x: ir.Value, name: str) -> ir.Value:
        return self._graph.op("QuickGelu", [x], name, domain=CONTRIB, alpha=1.0)

    def _normalize(self, x: ir.Value, node: str) -> tuple[ir.Value, ir.Value]:
        """Queries and keys, each head of length one."""
        config, graph = self._config, self._graph
        by_head = graph.constant("by_key", np.array([0, 0, -1, config.key_width], np.int64))
        # x / |x| is the norm by root mean square, less the root of the width.
        shrink = np.full(config.key_width, 1 / math.sqrt(config.key_width), np.float32)
        normed = graph.op(
            "SimplifiedLayerNormalization",
            [
                graph.op("Reshape", [x, by_head], f"{node}.keys_by_head"),
                graph.constant("unit_length", shrink),
            ],
            f"{node}.unit_keys",
            axis=-1,
            epsilon=_NORM_EPSILON / config.key_width,
        )
        half = np.array([config.keys_width, config.keys_width], np.int64)
        queries, keys = graph.ops(
            "Split",
            [self._flat(normed, f"{node}.unit_keys_flat"), graph.constant("halves", half)],
            [f"{node}.queries", f"{node}.keys"],
            axis=-1,
        )
        return queries, keys

    def _gates(self, x: ir.Value, node: str, module: str) -> tuple[ir.Value, ir.Value]:
        """Decay and rate of each head, [n, S, value heads]; in fp32, since errors add up in S."""
        graph, num_heads = self._graph, self._config.num_value_heads
        weight = graph.weight(f"{node}.decay_rate.weight", self._gate_weights(module))
        both = self._linear.emit_dense(x, weight, f"{node}.decay_rate")
        sizes = graph.constant("decay_rate_sizes", np.array([num_heads, num_heads], np.int64))
        decay, rate = graph.ops("Split", [both, sizes], [f"{node}.a", f"{node}.b"], axis=-1)
        speed = -np.exp(self._tensors.read(f"{module}.A_log"))
        bias = self._tensors.read(f"{module}.dt_bias")
        gates = graph.ops(
            "LinearAttentionGate",
            [
                decay,
                graph.weight(f"{node}.decay_bias", bias),
                graph.weight(f"{node}.decay_speed", speed),
                rate,
            ],
            [f"{node}.decay", f"{node}.rate"],
            domain=CONTRIB,
        )
        return gates[0], gates[1]

    def _gate_weights(self, module: str) -> FloatArray:
        """Rows of the decay, then those of the rate. [2 * value heads, hidden]"""
        config, read = self._config, self._tensors.read
        if not config.packs_projections:
            return np.concatenate(
                [read(f"{module}.in_proj_a.weight"), read(f"{module}.in_proj_b.weight")]
            )
        packed = read(f"{module}.in_proj_ba.weight")
        by_head = packed.reshape(config.num_key_heads, 2, -1, packed.shape[1])
        return np.concatenate([by_head[:, 1], by_head[:, 0]]).reshape(packed.shape)

    def _sizes(self) -> ir.Value:
        sizes = [2 * self._config.keys_width, self._config.values_width]
        return self._graph.constant("queries_keys_values", np.array(sizes, np.int64))

    def _flat(self, x: ir.Value, name: str) -> ir.Value:
        flat = self._graph.constant("flat_heads", np.array([0, 0, -1], np.int64))
        return self._graph.op("Reshape", [x, flat], name)

    def _past(self, state: StateSpec) -> ir.Value:
        return self._graph.input(state.input, "float32", _shape(state))

    def _present(self, value: ir.Value, state: StateSpec) -> None:
        self._graph.output(value, state.output, "float32", _shape(state))


def _shape(state: StateSpec) -> list[int | str]:
    assert state.rows is not None
    return ["n", state.heads, state.rows, state.width]
