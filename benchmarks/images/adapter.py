"""What every contestant's process does: load, warm up, time, answer in one JSON line.

Needs nothing but Python, because each contestant runs it in an environment of its own.
"""

import argparse
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from statistics import median

ANSWER_PREFIX = "RESULT "
TEXTS = 3  # timed


class ImageModel(ABC):
    """A loaded model. Every method blocks until its result is in memory."""

    version: str

    @abstractmethod
    def encode_texts(self) -> None:
        """A prompt and a negative prompt, in one batch where the runtime is at its best so."""

    @abstractmethod
    def guided_step(self, size: int) -> None:
        """One denoising step of one picture of `size` pixels a side, which is a batch of two."""

    @abstractmethod
    def decode(self, size: int) -> None:
        """The latents of one picture to pixels."""

    def seconds_per_step(self, size: int, num_steps: int) -> float:
        self.guided_step(size)  # warm-up
        return median_seconds(lambda: self.guided_step(size), num_steps)


def run_adapter(
    open_model: Callable[[argparse.Namespace], ImageModel], parser: argparse.ArgumentParser
) -> None:
    """Measure the model of the command line and print the answer (see `workload.Measurement`)."""
    args = parse_args(parser)
    start = time.perf_counter()
    model = open_model(args)
    load_s = time.perf_counter() - start
    sizes = [int(size) for size in args.sizes.split(",")]
    model.encode_texts()  # warm-up
    answer = {
        "text_s": median_seconds(model.encode_texts, TEXTS),
        "step_s": {size: model.seconds_per_step(size, args.steps) for size in sizes},
        "decode_s": {
            size: decode_seconds(model, size, args.decodes) for size in sizes if args.decodes
        },
        "load_s": load_s,
        "peak_rss_bytes": peak_rss_bytes(),
        "version": model.version,
    }
    print(ANSWER_PREFIX + json.dumps(answer), flush=True)


def parse_args(parser: argparse.ArgumentParser) -> argparse.Namespace:
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--sizes", default="256,512", help="pixels a side")
    parser.add_argument("--steps", type=int, default=2, help="timed at each size")
    parser.add_argument("--decodes", type=int, default=1, help="timed at each size; may be 0")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def decode_seconds(model: ImageModel, size: int, count: int) -> float:
    model.decode(size)  # warm-up
    return median_seconds(lambda: model.decode(size), count)


def median_seconds(run: Callable[[], None], count: int) -> float:
    times = []
    for _ in range(count):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return median(times)


def peak_rss_bytes() -> int:
    """`VmHWM` of this program; `ru_maxrss` would start at its parent's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("/proc/self/status names no VmHWM")
