"""Measures llama.cpp with its own tools: llama-bench for the prompt, llama-batched-bench else.

python -m benchmarks.peers.adapters.llamacpp --bin-dir DIR --model FILE [--threads N ...]
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.peers.adapters.adapter import ANSWER_PREFIX, parse_args

_CELLS = 256  # llama.cpp pads the cache of a sequence to a multiple of this


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin-dir", type=Path, required=True)
    args = parse_args(parser)
    streams = [int(count) for count in args.streams.split(",")]
    bench = run_json(prefill_command(args))[0]
    rows = [row for row in run_json(decode_command(args, streams)) if row["pl"] in streams]
    answer = {
        "prefill": max(bench["samples_ts"]),
        "decode": {n: max(row["speed_tg"] for row in rows if row["pl"] == n) for n in streams},
        # of the larger of the two processes, in KiB
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
        "version": f"llama.cpp {bench['build_commit']}",
    }
    print(ANSWER_PREFIX + json.dumps(answer), flush=True)


def prefill_command(args: argparse.Namespace) -> list[str]:
    """llama-bench warms up by itself; its samples are tokens per second of a whole prompt."""
    return [
        str(args.bin_dir / "llama-bench"),
        *("-m", str(args.model), "-t", str(args.threads), "-r", str(args.repetitions)),
        *("-p", str(args.prefill_tokens), "-n", "0", "-o", "json"),
    ]


def decode_command(args: argparse.Namespace, streams: list[int]) -> list[str]:
    """llama-batched-bench, each number of streams as often as there are repetitions."""
    row = args.decode_context + args.decode_tokens
    cells = max(streams) * -(-row // _CELLS) * _CELLS
    counts = ",".join(map(str, streams * args.repetitions))
    return [
        str(args.bin_dir / "llama-batched-bench"),
        *("-m", str(args.model), "-t", str(args.threads), "-tb", str(args.threads)),
        *("-npp", str(args.decode_context), "-ntg", str(args.decode_tokens)),
        *("-npl", counts, "-c", str(cells), "--output-format", "jsonl"),
    ]


def run_json(command: list[str]) -> list[dict[str, Any]]:
    """The objects a tool prints: one JSON array, or an object a line among other lines."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.stderr.write(done.stderr)
        raise SystemExit(f"{Path(command[0]).name} ended with status {done.returncode}")
    if done.stdout.lstrip().startswith("["):
        return list(json.loads(done.stdout))
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


if __name__ == "__main__":
    main()
