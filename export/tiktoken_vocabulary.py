"""`qwen.tiktoken`, the vocabulary of the first Qwen, as the tokenizer that all other engines have.

A line of the file is a token in base64 and its rank. tiktoken joins the two neighbours whose
union has the lowest rank, so every longer token stands for one merge: that of the two parts which
are left when only the ranks below its own are used.
"""

from __future__ import annotations

import base64
import binascii
import itertools
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
)

from export.errors import CheckpointError

TIKTOKEN_FILE = "qwen.tiktoken"
END_OF_TEXT, TURN_BEGIN, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, TURN_BEGIN, TURN_END, *(f"<|extra_{i}|>" for i in range(205)))

# What a text is cut into before bytes are merged.
_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

Ranks = dict[bytes, int]


def read_tiktoken(path: Path) -> Tokenizer:
    """The tokenizer that encodes every text as tiktoken does with this file.

    Raises:
        CheckpointError: The file is damaged.
    """
    ranks = _read_ranks(path)
    letters = _byte_letters()
    spelled = {token: "".join(letters[byte] for byte in token) for token in ranks}
    merges = [
        (spelled[parts[0]], spelled[parts[1]])
        for token, rank in sorted(ranks.items(), key=lambda item: item[1])
        if len(token) > 1 and len(parts := _parts(token, ranks, rank)) == 2
    ]
    vocabulary = {spelled[token]: rank for token, rank in ranks.items()}
    # A piece that is a token is that token, even where merges would not lead there.
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    # Normalized, since special tokens are looked for in the normalized text.
    tokenizer.add_special_tokens([AddedToken(text, normalized=True) for text in SPECIAL_TOKENS])
    if tokenizer.token_to_id(SPECIAL_TOKENS[-1]) != len(ranks) + len(SPECIAL_TOKENS) - 1:
        raise CheckpointError(f"{path} has one of the special tokens among its ordinary ones")
    return tokenizer


def _read_ranks(path: Path) -> Ranks:
    ranks: Ranks = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line:
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error):
            raise CheckpointError(
                f"{path} is damaged: its line {number} is not a token and its rank"
            ) from None
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise CheckpointError(f"{path} is damaged: its ranks are not 0 to {len(ranks) - 1}")
    if any(bytes([byte]) not in ranks for byte in range(256)):
        raise CheckpointError(f"{path} is damaged: it has no token for some of the 256 bytes")
    return ranks


def _parts(token: bytes, ranks: Ranks, limit: int) -> list[bytes]:
    """What is left of a token when its bytes are joined by the ranks below `limit` alone."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 1:
        joined = [ranks.get(a + b, limit) for a, b in itertools.pairwise(parts)]
        lowest = min(joined)
        if lowest >= limit:
            break
        first = joined.index(lowest)
        parts[first : first + 2] = [parts[first] + parts[first + 1]]
    return parts


def _byte_letters() -> list[str]:
    """The letter that byte-level tokenizers write for each byte: printable ones for themselves."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]
