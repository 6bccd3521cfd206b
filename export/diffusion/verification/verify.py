"""Compare a compiled image engine with diffusers: what its graphs gave, then its pictures."""

from __future__ import annotations

import importlib.util
import math
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.image.schedulers.schedule import NoiseSchedule
from engines.machine import usable_cores
from engines.manifest import ImageSpec, Manifest
from engines.reports import ComponentVerification, ImageVerification
from export.diffusion.checkpoint import DiffusionCheckpoint
from export.diffusion.pipelines import TEXT_ENCODER, PipelineGraph
from export.diffusion.verification.agreement import ErrorMeter, PictureMeter
from export.memory import available_memory

if TYPE_CHECKING:
    from export.diffusion.verification.drawing import Drawing, GraphRun

_PACKAGES = ("torch", "transformers", "diffusers")
_BYTES = 4  # of a weight in fp32
_COPIES = 2  # a module while it is loaded: what it starts with, and what is read
_ENGINE_COPIES = 2  # the file, and what the runtime packs for its kernels
_SMALL = 20_000_000  # parameters; layers of such a model take longer to share than to compute
_BESIDE = 1_000_000_000  # bytes of libraries and of what flows between layers


def missing_packages() -> list[str]:
    """The packages that the reference needs and that are not installed."""
    return [name for name in _PACKAGES if importlib.util.find_spec(name) is None]


def needed_memory(manifest: Manifest, checkpoint: DiffusionCheckpoint) -> int:
    """Bytes at the most: the engine draws first and is closed, then one stage after the other."""
    sizes = {
        name: _BYTES * sum(math.prod(part.tensors.shape(tensor)) for tensor in part.tensors)
        for name, part in checkpoint.components.items()
    }
    engine = _ENGINE_COPIES * sum(entry.size for entry in manifest.files.values())
    stages = [
        sum(stage) + (_COPIES - 1) * max(stage)
        for is_text in (True, False)
        if (
            stage := [
                size for name, size in sizes.items() if name.startswith(TEXT_ENCODER) is is_text
            ]
        )
    ]
    return max(engine, *stages) + _BESIDE


def reason_to_skip(manifest: Manifest, checkpoint: DiffusionCheckpoint) -> str | None:
    """The sentence that says why an engine cannot be compared here."""
    missing = missing_packages()
    if missing:
        return (
            f"the reference needs {' and '.join(missing)}: pip install 'enginery[verify]', or "
            "add --no-verify"
        )
    needed, available = needed_memory(manifest, checkpoint), available_memory()
    if needed > available:
        return (
            f"the comparison takes about {needed / 1e9:.1f} GB of memory, and "
            f"{available / 1e9:.1f} GB are available"
        )
    return None


def verify_image(
    spec: ImageSpec, engine_dir: Path, checkpoint: DiffusionCheckpoint
) -> tuple[ImageVerification, bool]:
    """Let the engine draw, then ask the modules about the same inputs and draw by diffusers.

    So the inputs compared are those that occur, they come from the path that serves users, and only
    one stage of the reference is in memory at a time.

    Returns:
        The report, and whether the weights are random.

    Raises:
        VerificationFailed: A graph gives NaN, or something of another shape.
    """
    import torch

    from export.diffusion.verification import pipelines
    from export.diffusion.verification.drawing import NUM_STEPS, draw

    started = time.monotonic()
    warnings.simplefilter("ignore")  # of the libraries, about each other
    num_threads = 1 if spec.num_parameters < _SMALL else usable_cores()
    torch.set_num_threads(num_threads)
    drawing = draw(engine_dir, spec, num_threads)
    comparison = _Comparison(spec, checkpoint, drawing)
    embeddings = comparison.compare_texts()
    pictures = comparison.compare_pictures(embeddings)
    schedule = NoiseSchedule.from_config(checkpoint.scheduler_config)
    report = ImageVerification(
        reference=pipelines.reference_name(),
        components=tuple(comparison.components),
        scheduler=drawing.scheduler or schedule.scheduler,
        num_inference_steps=NUM_STEPS,
        sizes=tuple((drawn.request.height, drawn.request.width) for drawn in drawing.pictures),
        mean_psnr=round(pictures.mean_psnr, 2),
        min_psnr=round(pictures.min_psnr, 2),
        max_difference=pictures.max_difference,
        seconds=round(time.monotonic() - started, 1),
    )
    return report, comparison.is_untrained


class _Comparison:
    """Loads the stages of the reference one after the other, and compares as it goes."""

    def __init__(self, spec: ImageSpec, checkpoint: DiffusionCheckpoint, drawing: Drawing) -> None:
        self.components: list[ComponentVerification] = []
        self.is_untrained = False
        self._spec = spec
        self._checkpoint = checkpoint
        self._drawing = drawing
        self._family = checkpoint.pipeline.family

    def compare_texts(self) -> list[dict[str, Any]]:
        """The stage of the text encoders; gives the embeddings of the pictures' prompts."""
        from export.diffusion.verification import pipelines

        modules = self._compare_stage(is_text=True)
        pipeline = pipelines.open_pipeline(
            self._checkpoint, self._spec, modules, self._drawing.scheduler
        )
        return pipelines.encode_prompts(pipeline, self._family, self._spec, self._drawing.pictures)

    def compare_pictures(self, embeddings: list[dict[str, Any]]) -> PictureMeter:
        """The stage of denoiser and autoencoder, and the pictures."""
        from export.diffusion.verification import pipelines

        modules = self._compare_stage(is_text=False)
        pipeline = pipelines.open_pipeline(
            self._checkpoint, self._spec, modules, self._drawing.scheduler
        )
        meter = PictureMeter()
        for drawn, told in zip(self._drawing.pictures, embeddings, strict=True):
            expected = pipelines.draw_reference(pipeline, self._family, drawn, told)
            meter.add(expected, drawn.picture)
        return meter

    def _compare_stage(self, *, is_text: bool) -> dict[str, Any]:
        """Load the modules of a stage, and compare the graphs that were drawn from each."""
        from export.diffusion.verification.pipelines import load_module
        from export.diffusion.verification.references import run_reference

        modules: dict[str, Any] = {}
        for graph in self._checkpoint.pipeline.graphs:
            is_there = graph.component in self._checkpoint.components
            if not is_there or graph.component.startswith(TEXT_ENCODER) is not is_text:
                continue
            if graph.component not in modules:
                modules[graph.component] = load_module(self._checkpoint, graph.component)
            module, file = modules[graph.component], f"{graph.name}.onnx"
            self.components.append(_compare(graph, module, self._drawing.runs[file]))
            if file == self._spec.denoiser:
                told = self._drawing.probe_run.inputs
                output = run_reference(module, graph, told)["model_output"]
                self.is_untrained = self._drawing.probe.is_untrained(output)
        return modules


def _compare(graph: PipelineGraph, module: Any, runs: list[GraphRun]) -> ComponentVerification:
    from export.diffusion.verification.references import run_reference

    meter = ErrorMeter(graph.name)
    for run in runs:
        expected = run_reference(module, graph, run.inputs)
        # What a graph gives beside for later runs of itself, no module gives.
        for name in run.outputs.keys() & expected.keys():
            meter.add(expected[name], run.outputs[name])
    shapes = [next(iter(run.inputs.values())).shape for run in runs]
    return ComponentVerification(
        graph=graph.name,
        inputs=tuple(dict.fromkeys(shapes)),
        relative_error=meter.relative_error,
        max_error=meter.max_error,
    )
