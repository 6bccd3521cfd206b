"""What every contestant measures, and the answer of its process."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from benchmarks.images.adapter import ANSWER_PREFIX

MAX_STEPS = 100  # of a run that is timed; engines allow 150


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Guided steps and decodes of one picture at each size.

    Raises:
        ValueError: A count is out of its range; the message names it.
    """

    sizes: tuple[int, ...] = (256, 512)  # pixels a side
    steps: int = 2  # timed at each size
    decodes: int = 1  # timed at each size
    cache_interval: int = 3
    cached_steps: int = 20  # of a run with step caching, whose mean counts
    num_threads: int = 1

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("sizes", min(self.sizes, default=0), 8, 4096),
            ("steps", self.steps, 1, MAX_STEPS),
            ("decodes", self.decodes, 1, MAX_STEPS),
            ("cache_interval", self.cache_interval, 2, MAX_STEPS),
            ("cached_steps", self.cached_steps, 1, MAX_STEPS),
            ("num_threads", self.num_threads, 1, 4096),
        ):
            if not least <= value <= most:
                raise ValueError(f"{name} is {value}, but it must be between {least} and {most}")

    def arguments(self, *, is_cached: bool = False) -> list[str]:
        """The flags that every adapter understands. With step caching nothing is decoded."""
        return [
            *("--sizes", ",".join(map(str, self.sizes))),
            *("--steps", str(self.cached_steps if is_cached else self.steps)),
            *("--decodes", str(0 if is_cached else self.decodes)),
            *("--threads", str(self.num_threads)),
        ]


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One process's answer: seconds by pixels a side, and bytes."""

    step_s: dict[int, float]
    decode_s: dict[int, float]  # empty with step caching
    text_s: float
    load_s: float
    peak_rss_bytes: int
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
