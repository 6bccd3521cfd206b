"""What a GPU is expected to reach, reckoned from shapes and bandwidth: nothing here is measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from benchmarks.checkpoints.catalogue import SHAPES
from benchmarks.checkpoints.shapes import ChatShape
from benchmarks.gpu.bandwidth import decode_limit
from benchmarks.gpu.chat import CONTEXT, DECODE_SEQS, STEPS
from benchmarks.markdown import table

_BYTES = 2  # of a number in 16 bits
# A layer is two norms, three products around the attention's three kernels, and four products or
# steps of the MLP; replayed one behind the other, each costs this much beside its reads.
KERNELS_PER_LAYER = 12
KERNEL_S = 2.5e-6


def predict(shapes: Sequence[str], bandwidth: float) -> str:
    """Decode steps of published shapes in 16 bits, as a Markdown table.

    Args:
        shapes: Their names.
        bandwidth: Bytes a second that the GPU reads and writes in copies.
    """
    head = ["predicted, decode", "streams", "limit, tokens/s", "expected", "of the limit"]
    rows = [row for name in shapes for row in _rows(name, bandwidth)]
    return table([head, *rows])


def _rows(name: str, bandwidth: float) -> Iterator[list[str]]:
    shape = SHAPES[name]  # type: ignore[index]  # one of its names
    for num_seqs in DECODE_SEQS:
        limit = decode_limit(bandwidth, weight_bytes(shape), cache_bytes(shape), num_seqs)
        step = num_seqs / limit + shape.num_hidden_layers * KERNELS_PER_LAYER * KERNEL_S
        speed = num_seqs / step
        yield [name, str(num_seqs), f"{limit:,.0f}", f"{speed:,.0f}", f"{speed / limit:.0%}"]


def weight_bytes(shape: ChatShape) -> int:
    """What a step reads of a dense decoder's weights: all but an embedding apart from the head."""
    count = sum(math.prod(size) for size in shape.tensors().values())
    if not shape.tie_word_embeddings:
        count -= shape.vocab_size * shape.hidden_size
    return _BYTES * count


def cache_bytes(shape: ChatShape) -> int:
    """What it reads of the keys and values of one sequence in the middle of the measurement."""
    per_token = 2 * shape.num_hidden_layers * shape.num_key_value_heads * shape.head_dim
    return _BYTES * per_token * (CONTEXT + STEPS // 2)
