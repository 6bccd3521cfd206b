"""A `GpuSession` that computes a graph for CUDA with numpy, operator by operator.

ONNX's reference evaluator runs the standard operators; those of ONNX Runtime are written out here
from their documentation, PagedAttention with its cache of blocks first of all.
"""

from __future__ import annotations

import ctypes
import math
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

DTYPES = {"bfloat16": np.dtype(ml_dtypes.bfloat16)}


def is_given(value):
    """Inputs that are left out share their name, "", with outputs that nobody wants."""
    return value is not None and value.size > 0


class FusedMatMul(OpRun):
    op_domain = "com.microsoft"

    def _run(self, a, b, transB=0):
        return (a @ (b.T if transB else b),)


class QuickGelu(OpRun):
    op_domain = "com.microsoft"

    def _run(self, x, alpha=1.702):
        return (x / (1 + np.exp(-alpha * x)),)


def rms_norm(x, weight, epsilon):
    mean = np.square(x.astype(np.float32)).mean(-1, keepdims=True)
    return (x / np.sqrt(mean + epsilon) * weight).astype(x.dtype)


class SimplifiedLayerNormalization(OpRun):
    op_domain = ""

    def _run(self, x, weight, axis=-1, epsilon=1e-5):
        return (rms_norm(x, weight, epsilon),)


class SkipSimplifiedLayerNormalization(OpRun):
    op_domain = "com.microsoft"

    def _run(self, x, skip, weight, epsilon=1e-5):
        total = x + skip
        unused = np.zeros(0, np.float32)
        return rms_norm(total, weight, epsilon), unused, unused, total


def rotate(x, cos, sin):
    """[T, heads, D] by [T, D / 2], the two halves of a head together."""
    first, second = np.split(x, 2, axis=-1)
    cos, sin = cos[:, None], sin[:, None]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)


class PagedAttention(OpRun):
    op_domain = "com.microsoft"

    def _run(
        self,
        query,
        key,
        value,
        key_cache,
        value_cache,
        cumulative,
        past,
        table,
        cos,
        sin,
        slots,
        head_sink,
        q_norm,
        k_norm,
        k_scale,
        v_scale,
        metadata,
        num_heads=None,
        kv_num_heads=None,
        scale=None,
        do_rotary=None,
        qk_norm_epsilon=1e-6,
        **unused,
    ):
        num_tokens, (_, block_size, _, width) = len(query), key_cache.shape
        assert do_rotary == 1
        assert cumulative[-1] == num_tokens == len(slots)
        lengths = np.diff(cumulative)
        assert lengths.max() <= metadata[0]
        assert (past + lengths).max() <= metadata[1] <= table.shape[1] * block_size
        if not is_given(key):
            ends = np.cumsum([num_heads * width, kv_num_heads * width])
            query, key, value = np.split(query, ends, axis=1)
        query = query.reshape(num_tokens, num_heads, width)
        key = key.reshape(num_tokens, kv_num_heads, width)
        value = value.reshape(num_tokens, kv_num_heads, width)
        if is_given(q_norm):
            query = rms_norm(query, q_norm, qk_norm_epsilon)
            key = rms_norm(key, k_norm, qk_norm_epsilon)
        rows = np.repeat(np.arange(len(past)), lengths)
        positions = past[rows] + np.arange(num_tokens) - cumulative[rows]
        query = rotate(query, cos[positions], sin[positions])
        key = rotate(key, cos[positions], sin[positions])
        written = slots >= 0
        key_cache.reshape(-1, kv_num_heads, width)[slots[written]] = key[written]
        value_cache.reshape(-1, kv_num_heads, width)[slots[written]] = value[written]
        attended = np.zeros_like(query)
        for token, (row, position) in enumerate(zip(rows, positions, strict=True)):
            seen = np.arange(position + 1)
            blocks = table[row, seen // block_size]
            assert (blocks >= 0).all(), "a token is to be read whose block nobody names"
            keys = key_cache[blocks, seen % block_size]  # [seen, kv_heads, D]
            values = value_cache[blocks, seen % block_size]
            grouped = query[token].reshape(kv_num_heads, -1, width)
            scores = np.einsum("kgd,skd->kgs", grouped, keys) * np.float32(scale)
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            scores /= scores.sum(-1, keepdims=True)
            attended[token] = np.einsum("kgs,skd->kgd", scores, values).reshape(num_heads, width)
        return attended.reshape(num_tokens, -1), key_cache, value_cache


class MoE(OpRun):
    op_domain = "com.microsoft"

    def _run(self, x, logits, fc1, bias, fc2, k=1, normalize_routing_weights=0, **activation):
        assert normalize_routing_weights == 1
        assert not is_given(bias)
        assert activation["activation_type"] == "swiglu"
        assert activation["swiglu_fusion"] == 1, "gates and what they open alternate"
        rows, y = x.reshape(-1, x.shape[-1]), np.zeros_like(x).reshape(-1, x.shape[-1])
        for row, scores, result in zip(rows, logits, y, strict=True):
            chosen = np.argsort(-scores, kind="stable")[:k]
            shares = np.exp(scores[chosen] - scores[chosen].max())
            for expert, share in zip(chosen, shares / shares.sum(), strict=True):
                hidden = fc1[expert] @ row
                gate, up = hidden[0::2], hidden[1::2]
                result += share * (fc2[expert] @ (gate / (1 + np.exp(-gate)) * up))
        return (y.reshape(x.shape),)


OPERATORS = [
    FusedMatMul,
    MoE,
    PagedAttention,
    QuickGelu,
    SimplifiedLayerNormalization,
    SkipSimplifiedLayerNormalization,
]


def view(array):
    """The memory behind a `DeviceArray`, as numpy sees it."""
    dtype = DTYPES.get(array.dtype) or np.dtype(array.dtype)
    size = math.prod(array.shape) * dtype.itemsize
    memory = (ctypes.c_byte * size).from_address(array.pointer)
    return np.frombuffer(memory, dtype).reshape(array.shape)


class ReferenceSession:
    """Inputs are read, and outputs written, where they are bound."""

    def __init__(self, graph: Path) -> None:
        model = onnx.load(graph)
        self._evaluator = ReferenceEvaluator(model, new_ops=OPERATORS)
        self.keys: list[int | None] = []  # of all runs

    def bind(self, inputs, host_inputs, outputs):
        feeds = {name: view(array) for name, array in inputs.items()} | dict(host_inputs)
        missing = set(self._evaluator.input_names) ^ feeds.keys()
        assert not missing, missing
        assert set(self._evaluator.output_names) == outputs.keys()
        return feeds, {name: view(array) for name, array in outputs.items()}

    def run(self, binding, graph_key):
        feeds, outputs = binding
        self.keys.append(graph_key)
        found = self._evaluator.run(None, feeds)
        for name, values in zip(self._evaluator.output_names, found, strict=True):
            assert outputs[name].shape == values.shape, name
            outputs[name][...] = values

    def close(self):
        del self._evaluator
