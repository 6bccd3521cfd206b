"""How fast the GPU's memory is, measured by copies: the limit of decoding one token at a time."""

from __future__ import annotations

import time

_SIZE = 1 << 30
_REPETITIONS = 20


def measured_bandwidth(size: int = _SIZE, repetitions: int = _REPETITIONS) -> float:
    """Bytes a second that copies within the current GPU read and write together."""
    from engines.backends.cuda import Buffer, Stream

    stream = Stream()
    with Buffer(size) as source, Buffer(size) as target:
        stream.copy(source.pointer, target.pointer, size)
        stream.synchronize()
        start = time.perf_counter()
        for _ in range(repetitions):
            stream.copy(source.pointer, target.pointer, size)
        stream.synchronize()
        elapsed = time.perf_counter() - start
    stream.close()
    return 2 * size * repetitions / elapsed


def decode_limit(bandwidth: float, weight_bytes: int, cache_bytes: int, num_seqs: int) -> float:
    """Tokens a second if a step did nothing but read the weights and what the sequences hold.

    Args:
        bandwidth: Bytes a second.
        weight_bytes: What a step reads of the weights.
        cache_bytes: What it reads of the cache for one sequence.
        num_seqs: Sequences that advance together.
    """
    return num_seqs * bandwidth / (weight_bytes + num_seqs * cache_bytes)
