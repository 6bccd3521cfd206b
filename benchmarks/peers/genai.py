"""Measures onnxruntime-genai; run by the Python that has it installed, imports nothing of ours.

GENAI_PYTHON benchmarks/peers/genai.py --model DIR [--threads N ...]
"""

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime_genai as og  # type: ignore[import-not-found,unused-ignore]

VOCABULARY = 100_000  # ids below it are ordinary tokens of every Qwen vocabulary


def main() -> None:
    args = parse_args()
    start = time.perf_counter()
    config = og.Config(args.model)
    threads = {"intra_op_num_threads": args.threads}
    config.overlay(json.dumps({"model": {"decoder": {"session_options": threads}}}))
    model = og.Model(config)
    load_s = time.perf_counter() - start
    rng = np.random.default_rng(0)
    run_prefill(model, rng, args.prefill_tokens)  # warm-up
    times = [run_prefill(model, rng, args.prefill_tokens) for _ in range(args.repetitions)]
    decode = {
        streams: max(
            run_decode(model, rng, streams, args.decode_context, args.decode_tokens)
            for _ in range(args.repetitions)
        )
        for streams in map(int, args.streams.split(","))
    }
    answer = {
        "prefill": args.prefill_tokens / min(times),
        "decode": decode,
        "peak_rss_bytes": peak_rss_bytes(),
        "load_s": load_s,
        "version": f"onnxruntime-genai {og.__version__} on onnxruntime {version('onnxruntime')}",
    }
    print("RESULT " + json.dumps(answer), flush=True)


def run_prefill(model: og.Model, rng: np.random.Generator, num_tokens: int) -> float:
    """Seconds from an empty cache to the first token."""
    generator = new_generator(model, 1, num_tokens + 1)
    prompt = random_prompt(rng, 1, num_tokens)
    start = time.perf_counter()
    generator.append_tokens(prompt)
    generator.generate_next_token()
    return time.perf_counter() - start


def run_decode(
    model: og.Model, rng: np.random.Generator, streams: int, context: int, num_tokens: int
) -> float:
    """Tokens per second of a static batch, after the prompts and one token of each."""
    generator = new_generator(model, streams, context + num_tokens + 1)
    generator.append_tokens(random_prompt(rng, streams, context))
    generator.generate_next_token()
    start = time.perf_counter()
    for _ in range(num_tokens):
        if generator.is_done():
            raise SystemExit("the batch ended before its tokens were generated")
        generator.generate_next_token()
    return streams * num_tokens / (time.perf_counter() - start)


def new_generator(model: og.Model, batch_size: int, length: int) -> og.Generator:
    """Greedy, with a cache of exactly `length` tokens a row and no early end."""
    params = og.GeneratorParams(model)
    params.set_search_options(
        batch_size=batch_size, max_length=length, min_length=length, do_sample=False
    )
    return og.Generator(model, params)


def random_prompt(rng: np.random.Generator, rows: int, length: int) -> np.ndarray:
    return rng.integers(VOCABULARY, size=(rows, length)).astype(np.int32)  # [rows, length]


def peak_rss_bytes() -> int:
    """`VmHWM` of this program; `ru_maxrss` would start at its parent's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("/proc/self/status names no VmHWM")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--prefill-tokens", type=int, default=512)
    parser.add_argument("--decode-context", type=int, default=128)
    parser.add_argument("--decode-tokens", type=int, default=64)
    parser.add_argument("--streams", default="1,8")
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
