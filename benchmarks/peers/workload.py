"""What every peer measures, and the JSON line in which its adapter answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

import msgspec

from benchmarks.peers.adapters.adapter import ANSWER_PREFIX

Precision = Literal["int8", "latency", "int4", "bf16", "fp32"]  # latency: ours, of both
Stage = Literal["engine", "http", "clients"]
AnswerT = TypeVar("AnswerT", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One prompt, then n streams decoded; and clients that each wait for their answer.

    Greedy or random tokens, no text but over HTTP.

    Raises:
        ValueError: A count is not positive.
    """

    prefill_tokens: int = 512
    decode_context: int = 128  # tokens that each stream holds before decode is timed
    decode_tokens: int = 64  # timed for each stream
    streams: tuple[int, ...] = (1, 8)
    repetitions: int = 2  # of each measurement in one process; the best counts
    clients: int = 8
    client_requests: int = 24  # of all clients together
    client_prompt: int = 128  # tokens
    client_tokens: int = 64  # of an answer
    num_threads: int = 1

    def __post_init__(self) -> None:
        counts = {
            "prefill_tokens": self.prefill_tokens,
            "decode_context": self.decode_context,
            "decode_tokens": self.decode_tokens,
            "repetitions": self.repetitions,
            "clients": self.clients,
            "client_requests": self.client_requests,
            "client_prompt": self.client_prompt,
            "client_tokens": self.client_tokens,
            "num_threads": self.num_threads,
            "streams": min(self.streams, default=0),
        }
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"{name} is {count}, but it must be at least 1")

    def arguments(self, stage: Stage) -> list[str]:
        """The flags of an adapter for a stage; every adapter understands all of them."""
        if stage == "clients":
            return [
                *("--stage", "clients", "--clients", str(self.clients)),
                *("--client-requests", str(self.client_requests)),
                *("--client-prompt", str(self.client_prompt)),
                *("--client-tokens", str(self.client_tokens)),
                *("--threads", str(self.num_threads)),
            ]
        return [
            *("--prefill-tokens", str(self.prefill_tokens)),
            *("--decode-context", str(self.decode_context)),
            *("--decode-tokens", str(self.decode_tokens)),
            *("--streams", ",".join(map(str, self.streams))),
            *("--repetitions", str(self.repetitions)),
            *("--threads", str(self.num_threads)),
        ]


class EngineMeasurement(msgspec.Struct, frozen=True, kw_only=True):
    """One process's answer: tokens per second, seconds and bytes."""

    prefill: float
    decode: dict[int, float]  # number of streams -> tokens per second of all together
    peak_rss_bytes: int
    load_s: float | None = None
    startup_s: float | None = None  # from the start of the process until the model is ready
    version: str


class ClientsMeasurement(msgspec.Struct, frozen=True, kw_only=True):
    """What clients saw, over HTTP or in the process; milliseconds, seconds and bytes."""

    output_tokens_per_s: float
    output_tokens: int
    ttft_p50_ms: float
    gap_p50_ms: float
    longest_gap_ms: float
    num_failed: int = 0
    gaps_ms: list[float] = []  # 401 percentiles; over HTTP only
    peak_rss_bytes: int = 0
    load_s: float | None = None
    startup_s: float | None = None
    version: str = ""


def read_answer(stdout: str, answer_type: type[AnswerT]) -> AnswerT | None:
    """The answer among an adapter's output lines; None if there is none."""
    for line in reversed(stdout.splitlines()):
        if line.startswith(ANSWER_PREFIX):
            try:
                return msgspec.json.decode(line.removeprefix(ANSWER_PREFIX), type=answer_type)
            except msgspec.DecodeError:
                return None
    return None
