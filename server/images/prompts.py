"""A prompt as the text encoders of an image model read it, and how many tokens it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import tokenizers

from engines.errors import ContextLengthExceeded, EngineCorrupt
from engines.image.prompt import frame_token_ids, max_text_tokens
from engines.image.request import TokenIds
from engines.manifest import ImageSpec


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """One text for every text encoder."""

    token_ids: TokenIds
    num_tokens: int  # as the encoder that reads most counts them, without start, end and padding


class PromptEncoder:
    """The tokenizers of an image model, one for each text encoder; any thread may encode.

    Special tokens that a client writes into a prompt stay text.
    """

    def __init__(self, spec: ImageSpec, encoders: Sequence[tokenizers.Tokenizer]) -> None:
        for encoder in encoders:
            encoder.encode_special_tokens = True
            encoder.no_truncation()
            encoder.no_padding()
        self._spec = spec
        self._encoders = tuple(encoders)
        self._limits = [
            max_text_tokens(msgspec.structs.replace(spec, text_encoders=(encoder,)))
            for encoder in spec.text_encoders
        ]
        # Encoders that read less than others cut what the others read whole.
        self._longest = max(range(len(self._limits)), key=self._limits.__getitem__)

    @classmethod
    def load(cls, folder: Path, spec: ImageSpec) -> PromptEncoder:
        """Load the tokenizers of an engine's folder.

        Raises:
            EngineCorrupt: A file is missing or cannot be read.
        """
        return cls(spec, [_load(folder / encoder.tokenizer) for encoder in spec.text_encoders])

    @property
    def max_tokens(self) -> int:
        """The most tokens that a prompt may have."""
        return self._limits[self._longest]

    def encode(self, text: str, param: str) -> EncodedPrompt:
        """Encode a text.

        Raises:
            ContextLengthExceeded: No text encoder reads all of the text, which is the field
                `param`.
        """
        ids = [encoder.encode(text, add_special_tokens=False).ids for encoder in self._encoders]
        if all(len(own) > limit for own, limit in zip(ids, self._limits, strict=True)):
            raise ContextLengthExceeded(
                f"{param} has {len(ids[self._longest])} tokens, but this model reads at most "
                f"{self.max_tokens}",
                param,
            )
        framed = zip(ids, self._spec.text_encoders, strict=True)
        return EncodedPrompt(
            tuple(frame_token_ids(own, encoder) for own, encoder in framed),
            len(ids[self._longest]),
        )


def _load(path: Path) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for everything
        raise EngineCorrupt(f"{path} cannot be read: {error}") from None
