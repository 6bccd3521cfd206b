"""Small `qwen.tiktoken` files, and tiktoken itself as the first Qwen uses it."""

from __future__ import annotations

import base64
import itertools
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path

import tiktoken

from export.tiktoken_vocabulary import SPECIAL_TOKENS

# As Qwen's own tokenizer writes it.
PATTERN = (
    r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"""
    r""" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
)

CORPUS = (
    "The quick brown fox jumps over the lazy dog while the other dogs watch the fox. "
    "You are a helpful assistant. Hello, how are you today? I'm well; we'll see, they've gone. "
    "def total(values):\n    return sum(values)  # 0123456789\n\n"
    "aaaaaaaaaaaaaaaa bbbbbbbb abababababab \t\t\n\n\n   ---- ==== "
    "naïve café Zürich größer 你好世界。今天天气很好 こんにちは 한국어 "
    "Привет мир שלום 🙂🙃🧑\u200d🤝\u200d🧑 "
) * 3


def train_ranks(num_tokens: int = 700, seed: int | None = None) -> dict[bytes, int]:
    """Byte pair ranks of the corpus: of the most frequent pairs or, with a seed, of random ones."""
    chooser = random.Random(seed)
    ranks = {bytes([byte]): byte for byte in range(256)}
    words = [[bytes([byte]) for byte in word.encode()] for word in CORPUS.split(" ")]
    words += [[b" ", *word] for word in words]
    while len(ranks) < num_tokens:
        counts: dict[tuple[bytes, bytes], int] = {}
        for word in words:
            for pair in itertools.pairwise(word):
                counts[pair] = counts.get(pair, 0) + 1
        if not counts:
            break
        pairs = sorted(counts)
        best = max(pairs, key=counts.__getitem__) if seed is None else chooser.choice(pairs)
        ranks.setdefault(best[0] + best[1], len(ranks))
        words = [_join(word, best) for word in words]
    return ranks


def write_tiktoken(path: Path, ranks: dict[bytes, int]) -> Path:
    """The file that Qwen publishes its vocabulary in."""
    lines = [base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items()]
    path.write_bytes(b"".join(lines))
    return path


def tiktoken_encoder(ranks: dict[bytes, int]) -> Callable[[str], list[int]]:
    """Text to ids as Qwen's own tokenizer does it."""
    special = {text: len(ranks) + index for index, text in enumerate(SPECIAL_TOKENS)}
    encoding = tiktoken.Encoding(
        "Qwen", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=special
    )
    return lambda text: encoding.encode(unicodedata.normalize("NFC", text), allowed_special="all")


def adversarial_texts(count: int, seed: int = 0) -> list[str]:
    """Words, all of Unicode, runs of a letter, white space, and whole and broken special tokens."""
    chooser = random.Random(seed)
    makers = (_words, _any_characters, _runs, _white_space, _special, _combining, _contractions)
    return [
        "".join(chooser.choice(makers)(chooser) for _ in range(chooser.randint(1, 6)))
        for _ in range(count)
    ]


def _join(word: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    joined: list[bytes] = []
    for part in word:
        if joined and (joined[-1], part) == pair:
            joined[-1] += part
        else:
            joined.append(part)
    return joined


def _words(chooser: random.Random) -> str:
    start = chooser.randrange(len(CORPUS))
    return CORPUS[start : start + chooser.randint(1, 40)]


def _any_characters(chooser: random.Random) -> str:
    planes = (range(0x80), range(0x3000), range(0xD800), range(0xE000, 0x110000))
    plane = chooser.choice(planes)
    drawn = (chr(chooser.choice(plane)) for _ in range(chooser.randint(1, 12)))
    return "".join(filter(_is_ordered_by_all, drawn))


def _is_ordered_by_all(character: str) -> bool:
    """Not a mark that only new releases of Unicode put in order: Python's and Rust's differ."""
    return not unicodedata.combining(character) or bool(unicodedata.ucd_3_2_0.combining(character))


def _runs(chooser: random.Random) -> str:
    return "".join(
        chooser.choice("ab0-=.'\u00e9\u4f60\U0001f642") * chooser.randint(1, 30)
        for _ in range(chooser.randint(1, 4))
    )


def _white_space(chooser: random.Random) -> str:
    kinds = " \t\n\r\x0b\x0c\x85\xa0\u1680\u2003\u2028\u202f\u3000\u200b\ufeff"
    return "".join(chooser.choice(kinds) for _ in range(chooser.randint(1, 8)))


def _special(chooser: random.Random) -> str:
    token = chooser.choice(SPECIAL_TOKENS)
    cut = chooser.randrange(len(token))
    return chooser.choice(
        (token, token * 2, token[:cut], token[cut:], f" {token}\n", token.upper())
    )


def _combining(chooser: random.Random) -> str:
    marks = "\u0300\u0301\u0308\u0323\u0338\u3099\u1161\u11a8"
    bases = "aeoAE>=<|\u1100\u304b\u212b\u1e9b\uac00"
    return "".join(chooser.choice(bases + marks) for _ in range(chooser.randint(1, 10)))


def _contractions(chooser: random.Random) -> str:
    tails = ("'s", "'T", "'re", "'VE", "'m", "'Ll", "'d", "'\u017f", "'x", "\u2019s")
    return chooser.choice(("it", "A", " ", "9", "")) + chooser.choice(tails)
