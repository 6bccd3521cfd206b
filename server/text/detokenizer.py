"""Token ids to text as they come, one at a time: bytes of a token, then whole characters of bytes.

A byte-level BPE token is a run of bytes, so a character may lie across tokens: it is held back
until its last byte arrives. The pieces join to what the tokenizer decodes from all ids at once.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable


def _byte_alphabet() -> dict[int, int]:
    """The printable stand-in of each byte in a byte-level vocabulary, as code point -> byte.

    Bytes that print are their own stand-ins; the others take the code points from 256 on, in order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return {byte: byte for byte in printable} | {256 + i: byte for i, byte in enumerate(hidden)}


BYTE_ALPHABET = _byte_alphabet()


def token_to_bytes(token: str) -> bytes:
    """The bytes that a vocabulary entry stands for.

    An added token that holds other characters (a space, for example) stands for its own UTF-8.
    """
    try:
        return bytes([BYTE_ALPHABET[ord(char)] for char in token])
    except KeyError:
        return token.encode()


class TokenTable(dict[int, str | bytes]):
    """What each token id adds to a text, looked up in the vocabulary when it is first met.

    A token of whole characters is a `str`; one that begins or ends inside a character, or is not
    UTF-8 at all, is `bytes`. Skipped ids and ids without an entry add nothing.
    """

    def __init__(
        self, id_to_token: Callable[[int], str | None], skipped_ids: frozenset[int] = frozenset()
    ) -> None:
        super().__init__()
        self._id_to_token = id_to_token
        self._skipped_ids = skipped_ids

    def __missing__(self, token_id: int) -> str | bytes:
        token = None if token_id in self._skipped_ids else self._id_to_token(token_id)
        self[token_id] = piece = _text_or_bytes(token_to_bytes(token or ""))
        return piece

    def bytes_of(self, token_id: int) -> bytes:
        piece = self[token_id]
        return piece.encode() if isinstance(piece, str) else piece


def _text_or_bytes(piece: bytes) -> str | bytes:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return piece


class Detokenizer:
    """The text of one growing sequence; linear in its length."""

    __slots__ = ("_pending", "_table")

    def __init__(self, table: TokenTable) -> None:
        self._table = table
        self._pending = b""  # the first bytes of a character; at most three

    def push(self, token_id: int) -> str:
        """The characters that this token completes, possibly none.

        Bytes that no further byte can make a character become U+FFFD.
        """
        piece = self._table[token_id]
        if isinstance(piece, str):
            if not self._pending:
                return piece
            piece = piece.encode()
        pending = self._pending + piece
        text, num_decoded = codecs.utf_8_decode(pending, "replace", False)
        self._pending = pending[num_decoded:]
        return text

    def flush(self) -> str:
        """What is left at the end: U+FFFD for a character that was never completed."""
        text = self._pending.decode(errors="replace")
        self._pending = b""
        return text
