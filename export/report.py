"""What the command shows: a progress bar while it works, a table or a JSON object at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from engines.manifest import ImageSpec, Manifest
from engines.reports import ImageVerification, QuantizationReport, Verification
from export.progress import Advance


class QuietProgress:
    """Shows nothing; for scripts."""

    @contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[Advance]:
        yield lambda units, doing="": None


class BarProgress:
    """A bar on standard error for each stage, that says what is being done."""

    @contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[Advance]:
        bar = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description:22}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[doing]}"),
            console=Console(stderr=True),
        )
        task = bar.add_task(name, total=total, doing="")

        def advance(units: int, doing: str = "") -> None:
            bar.update(task, advance=units, doing=doing)

        with bar:
            yield advance
            bar.update(task, total=total or 1, completed=total or 1, doing="")


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON object that `--json` prints."""

    path: str
    seconds: float
    size: int  # bytes of all files
    is_untrained: bool  # the weights are random, so the verification is reported and not judged
    manifest: Manifest


def print_json(summary: Summary) -> None:
    """One JSON object, one line, on standard output."""
    print(msgspec.json.encode(summary).decode())


def print_table(summary: Summary) -> None:
    """The closing table, on standard output."""
    manifest = summary.manifest
    table = Table(show_header=False, title=f"{manifest.id} is ready", title_justify="left")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("folder", summary.path)
    table.add_row("size", f"{summary.size / 1e6:,.1f} MB")
    table.add_row("seconds", f"{summary.seconds:.1f}")
    table.add_row("precision", _precision(manifest))
    if manifest.chat is not None and manifest.chat.decode_precision is not None:
        table.add_row("answers", f"{manifest.chat.decode_precision}, by a graph of their own")
    if manifest.chat is not None:
        table.add_row("parameters", f"{manifest.chat.num_parameters / 1e6:,.1f} million")
        table.add_row("context", f"{manifest.chat.max_context:,} tokens")
        if (cache := manifest.chat.cache_quantization) is not None:
            table.add_row("cache", f"int8, in ranges measured on {cache.num_tokens:,} tokens")
    if (pooling := manifest.embedding or manifest.rerank) is not None:
        table.add_row("parameters", f"{pooling.num_parameters / 1e6:,.1f} million")
        table.add_row("reads", f"{pooling.max_context:,} tokens a text, for {manifest.kind}")
    if manifest.image is not None:
        table.add_row("parameters", f"{manifest.image.num_parameters / 1e6:,.1f} million")
        table.add_row("pictures", _pictures(manifest.image))
    for lora in manifest.source.loras:
        table.add_row("lora", f"{lora.name} x {lora.scale:g}, in {lora.num_modules} modules")
    if manifest.quantization is not None:
        table.add_row("int8", _quantization(manifest.quantization))
    if manifest.unused_weights is not None:
        table.add_row("left out", escape(manifest.unused_weights))
    if manifest.stored_weights is not None:
        table.add_row("weights", escape(manifest.stored_weights))
    if manifest.precision_reason is not None:
        table.add_row("fp32, since", escape(manifest.precision_reason))
    table.add_row("agreement", escape(_agreement(summary)))  # it may name an extra in brackets
    Console().print(table)


def _precision(manifest: Manifest) -> str:
    nodes = ", ".join(f"{node} {layout}" for node, layout in manifest.node_precision.items())
    bits = ", int8 in 7 bits" if manifest.reduce_range else ""
    return f"{manifest.precision} ({nodes}{bits})"


def _pictures(spec: ImageSpec) -> str:
    return (
        f"{spec.default_width} x {spec.default_height}; others in multiples of "
        f"{spec.size_multiple}, up to {spec.max_pixels:,} pixels"
    )


def _quantization(report: QuantizationReport) -> str:
    return (
        f"PSNR {report.psnr_mean:.1f} dB (least {report.psnr_min:.1f}) against fp32, "
        f"{report.num_pictures} pictures of {report.width} x {report.height} in "
        f"{report.num_inference_steps} steps"
    )


def _agreement(summary: Summary) -> str:
    manifest = summary.manifest
    if manifest.image_verification is not None:
        return _image_agreement(manifest.image_verification, summary.is_untrained)
    if (embedding := manifest.embedding_verification) is not None:
        return (
            f"cosine {embedding.mean_cosine:.5f} (least {embedding.min_cosine:.5f}) against "
            f"{embedding.reference}"
        )
    if (rerank := manifest.rerank_verification) is not None:
        return f"scores within {rerank.max_score_error:.2g} of those by {rerank.reference}"
    if manifest.verification is not None:
        return _chat_agreement(manifest.verification, summary.is_untrained)
    return f"not verified: {manifest.verification_skipped}"


def _chat_agreement(report: Verification, is_untrained: bool) -> str:
    note = "; not judged, since the weights are random" if is_untrained else ""
    return (
        f"top-1 {report.top1_agreement:.1%}, KL {report.mean_kl:.2g}, "
        f"relative error {report.relative_logit_error:.2g} against {report.reference}{note}"
    )


def _image_agreement(report: ImageVerification, is_untrained: bool) -> str:
    note = "; pictures not judged, since the weights are random" if is_untrained else ""
    components = ", ".join(
        f"{component.graph} {component.relative_error:.1g}" for component in report.components
    )
    return (
        f"PSNR {report.mean_psnr:.1f} dB (least {report.min_psnr:.1f}), within "
        f"{report.max_difference} of 255 levels, against {report.reference}{note}; "
        f"relative errors: {components}"
    )
