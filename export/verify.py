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
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from cyclopts import App, Parameter

from engines.cli import add_command, run_app
from engines.manifest import ChatSpec, ImageSpec, Manifest, read_manifest
from engines.pooling.spec import EmbeddingVerification, RerankVerification
from engines.reports import ImageVerification, Verification
from export.agreement import AgreementMeter, TrainingDetector
from export.lora.option import pair_loras
from export.memory import available_memory
from export.verify_prompts import read_prompts

if TYPE_CHECKING:
    from export.answers import Answer
    from export.checkpoint import Checkpoint

_HEADROOM = 1.25  # what a runtime takes beside the weights


class VerificationResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the process prints: a report, or the sentence that says why there is none."""

    report: Verification | None = None
    image_report: ImageVerification | None = None
    embedding_report: EmbeddingVerification | None = None
    rerank_report: RerankVerification | None = None
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
    lora: Annotated[tuple[Path, ...], Parameter(help="LoRA that was added to the weights")] = ()
    lora_scale: Annotated[tuple[float, ...], Parameter(help="strength of a --lora")] = ()
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
    """Compare an engine of either kind with its reference."""
    if manifest.image is not None:
        return _verify_image(manifest, manifest.image, config)
    if manifest.chat is not None:
        return _verify_chat(manifest, manifest.chat, config)
    return _verify_pooling(manifest, config)


def _verify_image(manifest: Manifest, spec: ImageSpec, config: VerifyConfig) -> VerificationResult:
    from export.diffusion.checkpoint import open_diffusion_checkpoint
    from export.diffusion.lora.merge import merge_loras
    from export.diffusion.verification.verify import reason_to_skip, verify_image

    checkpoint = open_diffusion_checkpoint(config.checkpoint_path, manifest.source.checkpoint)
    if config.lora:
        checkpoint = merge_loras(checkpoint, pair_loras(config.lora, config.lora_scale))
    skipped = reason_to_skip(manifest, checkpoint)
    if skipped is not None:
        return VerificationResult(skipped=skipped)
    report, is_untrained = verify_image(spec, config.engine_dir, checkpoint)
    return VerificationResult(image_report=report, is_untrained=is_untrained)


def _verify_pooling(manifest: Manifest, config: VerifyConfig) -> VerificationResult:
    from export.pooling.verify import verify_pooling

    spec = manifest.embedding or manifest.rerank
    assert spec is not None
    by_transformers = _is_by_transformers(manifest, config)
    skipped = _reason_to_skip(manifest, spec.num_parameters, by_transformers)
    if skipped is not None:
        return VerificationResult(skipped=skipped)
    with tempfile.TemporaryDirectory(prefix=".reference-", dir=config.engine_dir) as scratch:
        report = verify_pooling(
            manifest,
            config.engine_dir,
            config.checkpoint_path,
            Path(scratch),
            by_transformers=by_transformers,
        )
    if isinstance(report, EmbeddingVerification):
        return VerificationResult(embedding_report=report)
    return VerificationResult(rerank_report=report)


def _verify_chat(manifest: Manifest, spec: ChatSpec, config: VerifyConfig) -> VerificationResult:
    """Let the engine answer fixed questions, then ask the reference about the same tokens.

    So the positions compared are those that users get to see, they come from the path that serves
    them (prefill, then a batch of decode steps), and only one model is in memory at a time.
    """
    from export.answers import greedy_answers
    from export.checkpoint import open_checkpoint
    from export.lora.adapter import has_merged_experts, merge_adapters

    started = time.monotonic()
    checkpoint = open_checkpoint(config.checkpoint_path, "reference")
    if config.lora:
        checkpoint = merge_adapters(checkpoint, pair_loras(config.lora, config.lora_scale))
    by_transformers = _is_by_transformers(manifest, config) and not has_merged_experts(checkpoint)
    skipped = _reason_to_skip(manifest, spec.num_parameters, by_transformers)
    if skipped is not None:
        return VerificationResult(skipped=skipped)
    prompts = read_prompts(config.engine_dir, max_prompt_tokens=max(1, spec.max_context // 2))
    answers = greedy_answers(config.engine_dir, spec, prompts)
    name, meter, detector = _consult_reference(spec, config, by_transformers, checkpoint, answers)
    report = Verification(
        reference=name,
        num_tokens=meter.num_positions,
        max_logit_error=meter.max_logit_error,
        mean_logit_error=meter.mean_logit_error,
        relative_logit_error=meter.relative_logit_error,
        top1_agreement=meter.top1_agreement,
        mean_kl=meter.mean_kl,
        seconds=round(time.monotonic() - started, 1),
    )
    return VerificationResult(report=report, is_untrained=detector.is_untrained)


def _is_by_transformers(manifest: Manifest, config: VerifyConfig) -> bool:
    from export.reference import knows_family

    return config.reference == "transformers" or (
        config.reference == "auto" and knows_family(manifest.family)
    )


def _reason_to_skip(manifest: Manifest, num_parameters: int, by_transformers: bool) -> str | None:
    is_reference = manifest.precision == "fp32" and not (
        manifest.chat is not None and manifest.chat.cache_quantization is not None
    )
    if is_reference and not by_transformers:
        return (
            "transformers is not installed or lacks this model, and an fp32 engine has no other "
            "reference"
        )
    needed = int(num_parameters * 4 * _HEADROOM)
    available = available_memory()
    if needed > available:
        return (
            f"the reference in fp32 takes about {needed / 1e9:.1f} GB of memory, and "
            f"{available / 1e9:.1f} GB are available"
        )
    return None


def _consult_reference(
    spec: ChatSpec,
    config: VerifyConfig,
    by_transformers: bool,
    checkpoint: Checkpoint,
    answers: list[Answer],
) -> tuple[str, AgreementMeter, TrainingDetector]:
    from export.reference import fp32_engine_logits, transformers_logits, transformers_name

    sequences = [answer.prompt_ids + answer.answer_ids[:-1] for answer in answers]
    meter, detector = AgreementMeter(), TrainingDetector()
    # Within the engine's folder, so that the exporter removes it even when this process is killed.
    with tempfile.TemporaryDirectory(prefix=".reference-", dir=config.engine_dir) as scratch:
        if by_transformers:
            name = transformers_name()
            references = transformers_logits(checkpoint, sequences, spec.num_tokens)
        else:
            name = "engine fp32"
            references = fp32_engine_logits(checkpoint, Path(scratch), sequences)
        for answer, reference in zip(answers, references, strict=True):
            num_prompt_tokens = len(answer.prompt_ids)
            meter.add(reference[num_prompt_tokens - 1 :], answer.logits)
            detector.add(answer.prompt_ids, reference[:num_prompt_tokens])
    return name, meter, detector


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
