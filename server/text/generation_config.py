"""The checkpoint's `generation_config.json`: how to sample where a request does not say."""

from __future__ import annotations

from pathlib import Path

import msgspec

from engines.errors import EngineCorrupt
from engines.llm.sampling_params import SamplingParams


class GenerationConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that a request can leave out; None where the checkpoint says nothing either.

    End-of-sequence ids are not read here: the engine's manifest has them.
    """

    do_sample: bool | None = None  # False: greedy, unless the request names a temperature
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    max_window_size: int | None = None  # tokens of a prompt; older turns are left out

    def default(self, name: str) -> float | None:
        """What to use for a sampling field that a request leaves out, None for the field's own."""
        if name == "temperature" and self.do_sample is False:
            return 0.0
        value: float | None = getattr(self, name, None)
        return value

    @classmethod
    def from_folder(cls, folder: Path) -> GenerationConfig:
        """Read the file, or nothing if there is none.

        Raises:
            EngineCorrupt: It cannot be read, or a value is out of its range.
        """
        path = folder / "generation_config.json"
        try:
            config = msgspec.json.decode(path.read_bytes(), type=cls)
            config._check()
        except FileNotFoundError:
            return cls()
        except (msgspec.DecodeError, ValueError) as error:
            raise EngineCorrupt(f"{path} cannot be used: {error}") from None
        return config

    def _check(self) -> None:
        if self.max_window_size is not None and self.max_window_size < 1:
            raise ValueError(f"max_window_size is {self.max_window_size}, but has to be 1 or more")
        SamplingParams(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=self.top_k or 0,
            min_p=self.min_p or 0.0,
            repetition_penalty=1.0 if self.repetition_penalty is None else self.repetition_penalty,
        )
