"""A cache of blocks that sequences share: allocation, prefix reuse by hash, reference counts.

The arrays belong to the runner. A block holds the keys and values of `block_size` tokens and is

    free      holds nothing that is known
    active    in the tables of one sequence or of several that begin alike
    cached    in no table; full, and known by the hash of its tokens and all before them

Only full blocks are shared. Nobody writes to one: what follows goes to the next block.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence as Rows
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from engines.llm.piece import Piece
from engines.llm.runner import RaggedBatch
from engines.llm.sequence import Sequence

Digest = bytes
_ROOT: Digest = b""  # what stands before the first block


class BlockMemory(Protocol):
    """The part of a runner that says how many blocks there are."""

    @property
    def num_blocks(self) -> int: ...

    @property
    def block_size(self) -> int:
        """Tokens of a block."""
        ...

    @property
    def bytes_per_token(self) -> int: ...


@dataclass(slots=True)
class _Table:
    """The blocks of one sequence, of which the first `len(digests)` are full and hashed."""

    blocks: list[int] = field(default_factory=list)
    digests: list[Digest] = field(default_factory=list)


class BlockCache:
    """Assigns blocks to sequences. Implements `Cache`."""

    is_ragged = True

    def __init__(self, memory: BlockMemory) -> None:
        self._size = memory.block_size
        self._block_bytes = memory.block_size * memory.bytes_per_token
        self._num_blocks = memory.num_blocks
        self._free = list(range(memory.num_blocks))[::-1]
        self._references = [0] * memory.num_blocks
        self._digest_of: dict[int, Digest] = {}
        self._block_of: dict[Digest, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()  # cached, least recently used first
        self._tables: dict[Sequence, _Table] = {}

    @property
    def limit_bytes(self) -> int:
        return self._num_blocks * self._block_bytes

    @property
    def used_bytes(self) -> int:
        return (self._num_blocks - len(self._free)) * self._block_bytes

    @property
    def max_tokens(self) -> int:
        return self._num_blocks * self._size

    @property
    def num_available(self) -> int:
        """Blocks that can be had without taking them from a sequence."""
        return len(self._free) + len(self._idle)

    def allocate(self, seq: Sequence) -> bool:
        """Give `seq` the longest known prefix of it, if all of its tokens would fit.

        At least one token is left to compute, since somebody has to get logits.
        """
        digests = self._known_prefix(seq)
        shared = [self._block_of[digest] for digest in digests]
        num_idle = sum(block in self._idle for block in shared)
        num_missing = self._blocks_for(seq.num_tokens) - len(shared)
        if num_missing > self.num_available - num_idle:
            return False
        for block in shared:
            self._idle.pop(block, None)
            self._references[block] += 1
        self._tables[seq] = _Table(shared, digests)
        seq.num_computed_tokens = len(shared) * self._size
        seq.num_cached_tokens = min(seq.num_computed_tokens, seq.num_prompt_tokens)
        return True

    def chunk_size(self, seq: Sequence, size: int) -> int:
        return size

    def reserve(self, seq: Sequence, num_new_tokens: int) -> bool:
        """Make room for more tokens of `seq`, evicting cached blocks, least recently used first."""
        self._register(seq)
        table = self._tables[seq]
        wanted = self._blocks_for(seq.num_computed_tokens + num_new_tokens) - len(table.blocks)
        if wanted > self.num_available:
            return False
        table.blocks.extend(self._take() for _ in range(wanted))
        return True

    def free(self, seq: Sequence) -> None:
        """Give the blocks of a sequence back; full ones stay for later prompts."""
        self._register(seq)
        table = self._tables.pop(seq)
        for block in reversed(table.blocks):  # the end of a prefix is of less use than its start
            self._references[block] -= 1
            if self._references[block]:
                continue
            if block in self._digest_of:
                self._idle[block] = None
            else:
                self._free.append(block)

    def compact(self) -> None:
        """Blocks have no order."""

    def decode(self, pieces: Rows[Piece]) -> tuple[RaggedBatch, tuple[Piece, ...]]:
        return self.batch(pieces), tuple(pieces)

    def batch(self, pieces: Rows[Piece]) -> RaggedBatch:
        """The tokens of all pieces end to end, and where their sequences lie."""
        lengths = np.array([len(piece.token_ids) for piece in pieces], np.int32)
        cu_seqlens = np.zeros(len(pieces) + 1, np.int32)
        np.cumsum(lengths, out=cu_seqlens[1:])
        tables = [self._tables[piece.seq].blocks for piece in pieces]
        block_tables = np.full((len(pieces), max(map(len, tables))), -1, np.int32)
        for row, blocks in enumerate(tables):
            block_tables[row, : len(blocks)] = blocks
        return RaggedBatch(
            input_ids=np.concatenate([np.asarray(piece.token_ids, np.int64) for piece in pieces]),
            cu_seqlens=cu_seqlens,
            past_lens=np.array([piece.seq.num_computed_tokens for piece in pieces], np.int32),
            block_tables=block_tables,
            logit_indices=np.concatenate(
                [
                    np.arange(end - piece.num_logits, end)
                    for end, piece in zip(cu_seqlens[1:].tolist(), pieces, strict=True)
                ]
            ),
        )

    def check_integrity(self) -> None:
        """Raise AssertionError if a block is lost, counted wrong or known by another's hash."""
        counts = [0] * self._num_blocks
        for seq, table in self._tables.items():
            assert len(set(table.blocks)) == len(table.blocks), "a block is in a table twice"
            assert len(table.blocks) * self._size >= seq.num_computed_tokens, "tokens have no block"
            for block in table.blocks:
                counts[block] += 1
        assert counts == self._references, "a reference count is wrong"
        idle, free = set(self._idle), set(self._free)
        active = {block for block, count in enumerate(counts) if count}
        assert len(free) == len(self._free), "a block is free twice"
        assert idle | free | active == set(range(self._num_blocks)), "a block is lost"
        assert len(idle) + len(free) + len(active) == self._num_blocks, "a block is in two states"
        assert idle <= self._digest_of.keys(), "a cached block has no hash"
        assert not free & self._digest_of.keys(), "a free block has a hash"
        assert {b: d for d, b in self._block_of.items()} == self._digest_of, "hashes disagree"

    def _known_prefix(self, seq: Sequence) -> list[Digest]:
        if seq.sampling.prompt_logprobs:
            return []
        found: list[Digest] = []
        for index in range((seq.num_tokens - 1) // self._size):
            digest = self._digest(found[-1] if found else _ROOT, seq, index)
            if digest not in self._block_of:
                break
            found.append(digest)
        return found

    def _register(self, seq: Sequence) -> None:
        """Make the blocks known that have become full since."""
        table = self._tables[seq]
        for index in range(len(table.digests), seq.num_computed_tokens // self._size):
            digest = self._digest(table.digests[-1] if table.digests else _ROOT, seq, index)
            table.digests.append(digest)
            if digest not in self._block_of:  # else another block holds the same
                self._block_of[digest] = table.blocks[index]
                self._digest_of[table.blocks[index]] = digest

    def _digest(self, before: Digest, seq: Sequence, index: int) -> Digest:
        token_ids = seq.token_ids[index * self._size : (index + 1) * self._size]
        content = before + np.array(token_ids, np.int32).tobytes()
        return hashlib.blake2b(content, digest_size=16).digest()

    def _take(self) -> int:
        if self._free:
            block = self._free.pop()
        else:
            block, _ = self._idle.popitem(last=False)
            del self._block_of[self._digest_of.pop(block)]
        self._references[block] = 1
        return block

    def _blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self._size)
