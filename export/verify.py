"""Compare a compiled engine with its reference model, as a process of its own.

`python -m export.verify --engine-dir DIR --checkpoint-path DIR` prints one JSON object. The
exporter runs it so that the memory of the reference is not its own, and hands it the manifest
that it has not written yet on standard input.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cyclopts import App, Parameter

from engines.cli import add_command, run_app
from engines.manifest import ChatSpec, Manifest, Verification, read_manifest
from export.agreement import FloatArray, compare, is_untrained
from export.memory import available_memory
from export.verify_prompts import tokenize_prompts

_HEADROOM = 1.25  # what a runtime takes beside the weights


class VerificationResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the process prints: a report, or the sentence that says why there is none."""

    report: Verification | None = None
    skipped: str | None = None
    is_untrained: bool = False  # random weights: reported, not judged


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyConfig:
    """Compare an engine with the model that it was compiled from."""

    engine_dir: Annotated[Path, Parameter(help="the engine's folder")]
    checkpoint_path: Annotated[Path, Parameter(help="the checkpoint's folder")]
    reference: Annotated[
        Literal["auto", "transformers", "fp32"],
        Parameter(help="auto: transformers where it is installed, else an fp32 engine"),
    ] = "auto"
    manifest_on_stdin: Annotated[
        bool,
        Parameter(
            help="read the manifest from a line of standard input; end when that is closed",
            negative="",
        ),
    ] = False


def run(config: VerifyConfig) -> int:
    """Verify and print the result."""
    manifest = (
        _manifest_from_stdin() if config.manifest_on_stdin else read_manifest(config.engine_dir)
    )
    result = verify(manifest, config)
    print(msgspec.json.encode(result).decode())
    return 0


def verify(manifest: Manifest, config: VerifyConfig) -> VerificationResult:
    """Run both models over the fixed prompts, the reference first and alone in memory."""
    from export.reference import has_transformers

    started = time.monotonic()
    if manifest.chat is None:
        raise ValueError(f"{config.engine_dir} holds an engine of kind {manifest.kind}, not chat")
    by_transformers = config.reference == "transformers" or (
        config.reference == "auto" and has_transformers()
    )
    skipped = _reason_to_skip(manifest, manifest.chat, by_transformers)
    if skipped is not None:
        return VerificationResult(skipped=skipped)
    prompts = tokenize_prompts(config.engine_dir / "tokenizer.json", manifest.chat.max_context)
    name, references = _reference_logits(manifest.chat, config, by_transformers, prompts)
    report = _compare_engine(manifest.chat, config.engine_dir, prompts, name, references, started)
    return VerificationResult(report=report, is_untrained=is_untrained(prompts, references))


def _reason_to_skip(manifest: Manifest, spec: ChatSpec, by_transformers: bool) -> str | None:
    if manifest.precision == "fp32" and not by_transformers:
        return "transformers is not installed, and an fp32 engine has no other reference"
    needed = int(spec.num_parameters * 4 * _HEADROOM)
    available = available_memory()
    if needed > available:
        return (
            f"the reference in fp32 takes about {needed / 1e9:.1f} GB of memory, and "
            f"{available / 1e9:.1f} GB are available"
        )
    return None


def _reference_logits(
    spec: ChatSpec, config: VerifyConfig, by_transformers: bool, prompts: list[list[int]]
) -> tuple[str, list[FloatArray]]:
    from export.reference import fp32_engine_logits, transformers_logits, transformers_name

    checkpoint = config.checkpoint_path
    if by_transformers:
        return transformers_name(), transformers_logits(checkpoint, prompts, spec.num_tokens)
    # Within the engine's folder, so that the exporter removes it even when this process is killed.
    with tempfile.TemporaryDirectory(prefix=".reference-", dir=config.engine_dir) as scratch:
        return "engine fp32", fp32_engine_logits(checkpoint, Path(scratch), prompts)


def _compare_engine(
    spec: ChatSpec,
    engine_dir: Path,
    prompts: list[list[int]],
    reference: str,
    references: list[FloatArray],
    started: float,
) -> Verification:
    from export.reference import engine_logits

    agreement = compare(references, engine_logits(engine_dir, spec, prompts))
    return Verification(
        reference=reference,
        num_tokens=agreement.num_positions,
        max_logit_error=agreement.max_logit_error,
        mean_logit_error=agreement.mean_logit_error,
        relative_logit_error=agreement.relative_logit_error,
        top1_agreement=agreement.top1_agreement,
        mean_kl=agreement.mean_kl,
        seconds=round(time.monotonic() - started, 1),
    )


def _manifest_from_stdin() -> Manifest:
    manifest = msgspec.json.decode(sys.stdin.buffer.readline(), type=Manifest)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return manifest


def _end_with_parent() -> None:
    """The exporter holds the other end open while it lives; a killed one must not leave us."""
    # Not through the buffer, whose lock a thread must not hold when the interpreter ends.
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


if __name__ == "__main__":
    app = App(name="python -m export.verify", help=VerifyConfig.__doc__)
    add_command(app, VerifyConfig, run, name=None)
    run_app(app, table="verify")
