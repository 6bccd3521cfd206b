"""What every peer measures, and the JSON line in which its adapter answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

Precision = Literal["int8", "int4"]
ANSWER_PREFIX = "RESULT "


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One prompt computed, then n streams decoded; greedy or random tokens, no text.

    Raises:
        ValueError: A count is not positive.
    """

    prefill_tokens: int = 512
    decode_context: int = 128  # tokens that each stream holds before decode is timed
    decode_tokens: int = 64  # timed for each stream
    streams: tuple[int, ...] = (1, 8)
    repetitions: int = 2  # of each measurement in one process; the best counts
    num_threads: int = 1

    def __post_init__(self) -> None:
        counts = {
            "prefill_tokens": self.prefill_tokens,
            "decode_context": self.decode_context,
            "decode_tokens": self.decode_tokens,
            "repetitions": self.repetitions,
            "num_threads": self.num_threads,
            "streams": min(self.streams, default=0),
        }
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"{name} is {count}, but it must be at least 1")

    def arguments(self) -> list[str]:
        """The flags that every adapter understands."""
        return [
            *("--prefill-tokens", str(self.prefill_tokens)),
            *("--decode-context", str(self.decode_context)),
            *("--decode-tokens", str(self.decode_tokens)),
            *("--streams", ",".join(map(str, self.streams))),
            *("--repetitions", str(self.repetitions)),
            *("--threads", str(self.num_threads)),
        ]


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One process's answer: tokens per second, seconds and bytes."""

    prefill: float
    decode: dict[int, float]  # number of streams -> tokens per second of all together
    peak_rss_bytes: int
    load_s: float | None = None
    version: str


def read_measurement(stdout: str) -> Measurement | None:
    """The answer among an adapter's output lines; None if there is none."""
    for line in reversed(stdout.splitlines()):
        if line.startswith(ANSWER_PREFIX):
            try:
                return msgspec.json.decode(line.removeprefix(ANSWER_PREFIX), type=Measurement)
            except msgspec.DecodeError:
                return None
    return None
