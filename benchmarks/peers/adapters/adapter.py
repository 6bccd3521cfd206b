"""What every adapter does, whichever Python runs it; needs nothing but the standard library.

`--stage engine` times a prompt and the decoding of some streams; `--stage clients` keeps some
clients busy that each send a prompt, read the answer and send the next.
"""

import argparse
import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

ANSWER_PREFIX = "RESULT "
VOCABULARY = 100_000  # ids below it are ordinary tokens of every Qwen vocabulary


class ChatModel(ABC):
    """A loaded model. Tokens of prompts are random, and nothing is reused between calls."""

    version: str

    @abstractmethod
    def prefill(self, num_tokens: int) -> float:
        """Tokens per second of one prompt, from an empty cache to its first token."""

    @abstractmethod
    def decode(self, streams: int, context: int, num_tokens: int) -> float:
        """Tokens per second of all streams together, after prompts of `context` tokens."""


class BatchingModel(ChatModel):
    """A model whose sequences join and leave between steps."""

    @abstractmethod
    def add(self, sequence_id: int, num_prompt_tokens: int, num_tokens: int) -> None:
        """Queue a random prompt whose answer has exactly `num_tokens` tokens."""

    @abstractmethod
    def step(self) -> list[tuple[int, int, bool]]:
        """One step: (sequence, new tokens, whether it has ended) of all that advanced."""


def run_adapter(
    open_model: Callable[[argparse.Namespace], ChatModel], parser: argparse.ArgumentParser
) -> None:
    """Measure the model of the command line and print the answer (see `workload`)."""
    args = parse_args(parser)
    start = time.perf_counter()
    model = open_model(args)
    load_s = time.perf_counter() - start
    startup_s = process_age_s()
    measure = measure_clients if args.stage == "clients" else measure_engine
    answer = measure(model, args) | {
        "load_s": load_s,
        "startup_s": startup_s,
        "peak_rss_bytes": peak_rss_bytes(),
        "version": model.version,
    }
    print(ANSWER_PREFIX + json.dumps(answer), flush=True)


def measure_engine(model: ChatModel, args: argparse.Namespace) -> dict[str, Any]:
    """The best of the repetitions, after a warm-up."""
    repeat = range(args.repetitions)
    model.prefill(args.prefill_tokens)  # warm-up
    prefill = max(model.prefill(args.prefill_tokens) for _ in repeat)
    decode = {
        streams: max(model.decode(streams, args.decode_context, args.decode_tokens) for _ in repeat)
        for streams in map(int, args.streams.split(","))
    }
    return {"prefill": prefill, "decode": decode}


def measure_clients(model: ChatModel, args: argparse.Namespace) -> dict[str, Any]:
    """Tokens per second, first tokens and gaps of a closed loop, in milliseconds."""
    if not isinstance(model, BatchingModel):
        raise SystemExit("this model runs one batch at a time, so it serves no clients")
    loop = ClosedLoop(model, args.client_prompt, args.client_tokens)
    loop.run(min(2, args.clients), min(2, args.clients))  # warm-up
    return loop.run(args.clients, args.client_requests)


class ClosedLoop:
    """Clients in this process: each sends its next prompt when the last answer is whole."""

    def __init__(
        self,
        model: BatchingModel,
        num_prompt_tokens: int,
        num_tokens: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._model = model
        self._num_prompt_tokens = num_prompt_tokens
        self._num_tokens = num_tokens
        self._clock = clock
        self._next_id = 0

    def run(self, num_clients: int, num_requests: int) -> dict[str, Any]:
        """Answer `num_requests` prompts, at most `num_clients` at once."""
        sent: dict[int, float] = {}
        last: dict[int, float] = {}
        first_ms: list[float] = []
        gaps_ms: list[float] = []
        num_left, num_tokens = num_requests, 0
        start = now = self._clock()
        while num_left or sent:
            while num_left and len(sent) < num_clients:
                self._model.add(self._next_id, self._num_prompt_tokens, self._num_tokens)
                sent[self._next_id] = now
                self._next_id, num_left = self._next_id + 1, num_left - 1
            stepped = self._model.step()
            now = self._clock()
            for sequence_id, count, has_ended in stepped:
                if count and sequence_id in last:
                    gaps_ms.append(1e3 * (now - last[sequence_id]))
                elif count:
                    first_ms.append(1e3 * (now - sent[sequence_id]))
                if count:
                    last[sequence_id] = now
                    num_tokens += count
                if has_ended:
                    del sent[sequence_id]
                    last.pop(sequence_id, None)
        return {
            "output_tokens_per_s": num_tokens / (now - start),
            "output_tokens": num_tokens,
            "ttft_p50_ms": median(first_ms),
            "gap_p50_ms": median(gaps_ms) if gaps_ms else 0.0,
            "longest_gap_ms": max(gaps_ms, default=0.0),
        }


def parse_args(parser: argparse.ArgumentParser) -> argparse.Namespace:
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--stage", choices=("engine", "clients"), default="engine")
    parser.add_argument("--prefill-tokens", type=int, default=512)
    parser.add_argument("--decode-context", type=int, default=128)
    parser.add_argument("--decode-tokens", type=int, default=64, help="timed, of each stream")
    parser.add_argument("--streams", default="1,8")
    parser.add_argument("--repetitions", type=int, default=2, help="the best counts")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--client-requests", type=int, default=24, help="of all clients together")
    parser.add_argument("--client-prompt", type=int, default=128, help="tokens")
    parser.add_argument("--client-tokens", type=int, default=64, help="of an answer")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def longest_sequence(args: argparse.Namespace) -> int:
    """Tokens of the longest prompt with its answer, and some to spare."""
    streams = max(map(int, args.streams.split(",")))
    decode = int(args.decode_context + args.decode_tokens) + 4 * streams + 8
    clients = int(args.client_prompt + args.client_tokens) + 8
    return max(int(args.prefill_tokens) + 8, decode, clients)


def most_sequences(args: argparse.Namespace) -> int:
    """That run at a time."""
    return max(int(args.clients), *map(int, args.streams.split(",")))


def process_age_s() -> float:
    """Seconds since this process began, with the imports of its program."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    began_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return float(Path("/proc/uptime").read_text().split()[0]) - began_s


def peak_rss_bytes() -> int:
    """`VmHWM` of this program; `ru_maxrss` would start at its parent's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("/proc/self/status names no VmHWM")
