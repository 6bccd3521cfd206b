"""A diffusers checkpoint folder: its pipeline, and of each component config and weights.

Never runs code from it. Weights that exist only in half precision, as `*.fp16.safetensors`, are
taken; which of two variants is taken is never left open, the full one comes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.manifest import LoraSource
from export.checkpoint import CONFIG_FILE, read_json_object
from export.diffusion.pipelines import PIPELINES, TEXT_ENCODER, Pipeline, tokenizer_of
from export.errors import CheckpointError
from export.tensor_files import TRANSFORMERS_STEM, TensorFiles, open_tensor_files

INDEX_FILE = "model_index.json"
SCHEDULER_CONFIG_FILE = "scheduler_config.json"

HALF_PRECISION = ".fp16"

_DIFFUSERS_STEM = "diffusion_pytorch_model"


@dataclass(frozen=True, slots=True)
class Component:
    """One component with weights.

    Attributes:
        name: Its folder inside the checkpoint.
        class_name: The class of transformers or diffusers that it was saved from.
        config: The content of its config.json.
        tensors: Its weights.
    """

    name: str
    class_name: str
    config: dict[str, Any]
    tensors: TensorFiles

    @property
    def config_file(self) -> str:
        """The config as messages name it."""
        return f"{self.name}/{CONFIG_FILE}"


@dataclass(frozen=True, slots=True)
class DiffusionCheckpoint:
    """An opened checkpoint.

    Attributes:
        folder: Where its components lie.
        name: The hub id it came from, or the folder's name; never a path.
        revision: The commit on the hub, if it came from there.
        pipeline: What the table knows of its pipeline.
        index: The content of model_index.json.
        components: The components with weights, by name.
        scheduler_config: The content of scheduler_config.json.
        loras: What was added to the weights.
    """

    folder: Path
    name: str
    revision: str | None
    pipeline: Pipeline
    index: dict[str, Any]
    components: Mapping[str, Component]
    scheduler_config: dict[str, Any]
    loras: tuple[LoraSource, ...] = ()

    @property
    def left_out(self) -> bool:
        """Whether the pipeline's optional component is not there."""
        return self.pipeline.optional not in (None, *self.components)


def is_diffusion_checkpoint(folder: Path) -> bool:
    """Whether a folder has the layout of diffusers."""
    return (folder / INDEX_FILE).is_file()


def open_diffusion_checkpoint(
    folder: Path, name: str, revision: str | None = None
) -> DiffusionCheckpoint:
    """Open a checkpoint folder; no weights are read yet.

    Raises:
        CheckpointError: The folder is missing, is not such a checkpoint, its pipeline or a
            component is not supported, or a component or its weights are missing or damaged.
    """
    if not folder.is_dir():
        raise CheckpointError(f"there is no folder {folder}")
    if not is_diffusion_checkpoint(folder):
        raise CheckpointError(f"{folder} is not a diffusers checkpoint: it holds no {INDEX_FILE}")
    index = read_json_object(folder / INDEX_FILE)
    pipeline = find_pipeline(index)
    models = component_models(pipeline, index)
    tokenizers = [tokenizer_of(name) for name in models if name.startswith(TEXT_ENCODER)]
    for setting in (*tokenizers, "scheduler"):
        _component_folder(folder, index, setting)
    components = {
        component: _open_component(folder, index, component, supported)
        for component, supported in models.items()
    }
    scheduler_config = read_json_object(_existing(folder / "scheduler" / SCHEDULER_CONFIG_FILE))
    return DiffusionCheckpoint(
        folder, name, revision, pipeline, index, components, scheduler_config
    )


def find_pipeline(index: dict[str, Any]) -> Pipeline:
    """What the table knows of the pipeline that a model_index.json names.

    Raises:
        CheckpointError: It is not supported; the message names those that are.
    """
    class_name = index.get("_class_name")
    if not isinstance(class_name, str) or class_name not in PIPELINES:
        raise CheckpointError(
            f"the checkpoint's pipeline is {class_name or 'not named'}, but it must be one of: "
            + ", ".join(PIPELINES)
        )
    return PIPELINES[class_name]


def component_models(pipeline: Pipeline, index: dict[str, Any]) -> dict[str, str]:
    """The components with weights and the classes that are supported, without one left out."""
    return {
        component: supported
        for component, supported in pipeline.models.items()
        if component != pipeline.optional or not _is_left_out(index, component)
    }


def weights_stem(library: str) -> str:
    """How the names of a component's weights begin, by the library that saved them."""
    return TRANSFORMERS_STEM if library == "transformers" else _DIFFUSERS_STEM


def _open_component(
    folder: Path, index: dict[str, Any], component: str, supported: str
) -> Component:
    component_folder = _component_folder(folder, index, component)
    class_name = index[component][1]
    if class_name != supported:
        raise CheckpointError(
            f"{INDEX_FILE} names the class {class_name} for {component}, but only {supported} is "
            "supported"
        )
    config = read_json_object(_existing(component_folder / CONFIG_FILE))
    tensors = open_tensor_files(component_folder, _stem(component_folder, index[component][0]))
    return Component(component, class_name, config, tensors)


def _is_left_out(index: dict[str, Any], component: str) -> bool:
    return index.get(component) in (None, [None, None])


def _component_folder(folder: Path, index: dict[str, Any], component: str) -> Path:
    """The folder of a component that the index names and that is there."""
    entry = index.get(component)
    if not (isinstance(entry, list) and len(entry) == 2 and all(isinstance(x, str) for x in entry)):
        raise CheckpointError(
            f"{folder / INDEX_FILE} names no {component}, which the pipeline needs"
        )
    if not (folder / component).is_dir():
        raise CheckpointError(
            f"{INDEX_FILE} names the component {component}, but there is no folder "
            f"{folder / component}"
        )
    return folder / component


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise CheckpointError(f"{path.parent} holds no {path.name}")
    return path


def _stem(folder: Path, library: str) -> str:
    stem = weights_stem(library)
    half = f"{stem}{HALF_PRECISION}"
    is_full = any(folder.glob(f"{stem}.safetensors*"))
    return half if not is_full and (folder / f"{half}.safetensors").is_file() else stem
