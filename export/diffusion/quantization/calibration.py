"""Measure the activations of a model in fp32 while it draws: what int8 needs to know beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from numpy.typing import NDArray

from engines import __version__
from engines.image.request import ImageRequest, Picture
from engines.manifest import ImageSpec
from export.diffusion.compile import ComponentGraph
from export.diffusion.quantization.drawing import (
    calibration_requests,
    check_requests,
    draw,
    open_engine,
)
from export.diffusion.quantization.precision import NodeRanges, Ranges, WatchfulPrecision
from export.diffusion.quantization.prompts import CHECK_PROMPTS
from export.diffusion.quantization.ranges import ActivationRange, RangeMeter
from export.errors import ExportError
from export.graph import GraphBuilder
from export.progress import Advance, Progress
from export.weights import WeightsFile

_LAST_AXIS = -1  # what a matrix multiplication sums over
_IMAGE_CHANNELS = 1
_SHOWN = 50  # letters of a prompt beside the progress bar


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured, and what the model draws in fp32.

    Attributes:
        ranges: Of every node that is to be int8, from the least to the largest value.
        clipped_ranges: The same with the least squared error, which clips a few large values.
        num_prompts: Pictures that were drawn to measure.
        requests: Pictures to compare by.
        references: Those pictures in fp32.
    """

    ranges: Ranges
    clipped_ranges: Ranges
    num_prompts: int
    requests: tuple[ImageRequest, ...]
    references: tuple[Picture, ...]


@dataclass(frozen=True, slots=True)
class WatchedNode:
    """Names of the outputs that lay open what a node reads and gives."""

    x: str
    y: str | None


class ActivationMeter:
    """Collects the values that a graph lays open; sees every run while it is `active`.

    Args:
        watched: By the graph's file, then by node.
    """

    def __init__(self, watched: Mapping[str, Mapping[str, WatchedNode]]) -> None:
        self.active = True
        self._watched = watched
        self._meters: dict[tuple[str, str], RangeMeter] = {}
        for graph, nodes in watched.items():
            for node in nodes.values():
                channel_axis = _LAST_AXIS if node.y is None else _IMAGE_CHANNELS
                for name in filter(None, (node.x, node.y)):
                    self._meters[graph, name] = RangeMeter(channel_axis)

    def __call__(
        self, graph: str, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]
    ) -> None:
        if not self.active:
            return
        for name, values in outputs.items():
            meter = self._meters.get((graph, name))
            if meter is None:
                continue
            try:
                meter.add(values)
            except FloatingPointError as error:
                raise ExportError(f"{graph} computes {error} at {name} in fp32") from None

    def ranges(self, num_pictures: int) -> tuple[Ranges, Ranges]:
        """Of what was seen in so many pictures, and those that clip."""
        found = {key: meter.measured() for key, meter in self._meters.items()}

        def node_ranges(graph: str, names: WatchedNode, *, clips: bool) -> NodeRanges:
            def channels(name: str) -> tuple[ActivationRange, ...]:
                return found[graph, name].channel_ranges(clips=clips, num_pictures=num_pictures)

            x, y = found[graph, names.x], None if names.y is None else channels(names.y)
            return NodeRanges(x.range(clips=clips), channels(names.x), x.mean, y)

        whole, clipped = (
            {
                Path(graph).stem: {
                    node: node_ranges(graph, names, clips=clips) for node, names in nodes.items()
                }
                for graph, nodes in self._watched.items()
            }
            for clips in (False, True)
        )
        return whole, clipped


def write_watched_graph(
    graph: ComponentGraph, folder: Path, advance: Advance
) -> dict[str, WatchedNode]:
    """Write a graph in fp32 whose outputs are also what its nodes for int8 read and give."""
    precision = WatchfulPrecision(graph.place.kind)
    with WeightsFile(folder / f"{graph.name}.onnx.data") as weights:
        builder = GraphBuilder(weights, graph.name)
        graph.emit(
            graph=builder,
            precision=precision,
            advance=lambda part: advance(1, f"{graph.name}: {part}"),
        )
        nodes = {}
        for node, around in precision.watched.items():
            for value in filter(None, (around.x, around.y)):
                builder.expose(value)
            y = None if around.y is None else str(around.y.name)
            nodes[node] = WatchedNode(str(around.x.name), y)
        builder.save(folder / f"{graph.name}.onnx", __version__)
    return nodes


def calibrate(
    graphs: tuple[ComponentGraph, ...],
    spec: ImageSpec,
    folder: Path,
    prompts: tuple[str, ...],
    progress: Progress,
    *,
    compares: bool,
) -> Calibration:
    """Draw the prompts in fp32, then the pictures to compare by.

    Args:
        graphs: All of the engine's.
        spec: The engine's.
        folder: Holds the tokenizers and the scheduler's config; gets the graphs.
        prompts: What to draw.
        progress: Told every part of a graph and every step of a picture.
        compares: Whether there are to be pictures to compare by.
    """
    watched = {}
    with progress.stage("preparing calibration", sum(g.num_parts for g in graphs)) as advance:
        for graph in graphs:
            watched[f"{graph.name}.onnx"] = write_watched_graph(graph, folder, advance)
    meter = ActivationMeter(watched)
    # Every step is a whole one: the layers of step caching are among those of the whole graph.
    engine = open_engine(folder, msgspec.structs.replace(spec, shallow_denoiser=None), meter)
    measured = calibration_requests(folder, spec, prompts)
    compared = check_requests(folder, spec, CHECK_PROMPTS if compares else ())
    total = sum(request.num_inference_steps for request in (*measured, *compared))
    with progress.stage("calibrating", total) as advance:
        for prompt, request in zip(prompts, measured, strict=True):
            draw(engine, request, partial(advance, doing=prompt[:_SHOWN]))
        meter.active = False
        references = [
            draw(engine, request, partial(advance, doing="pictures to compare by"))
            for request in compared
        ]
    engine.close()
    return Calibration(
        *meter.ranges(len(prompts)), len(prompts), tuple(compared), tuple(references)
    )
