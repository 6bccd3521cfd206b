"""Which files of an image checkpoint on a hub an export reads: no pickles and nothing twice."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

from export.checkpoint import CONFIG_FILE
from export.diffusion.checkpoint import (
    HALF_PRECISION,
    SCHEDULER_CONFIG_FILE,
    component_models,
    weights_stem,
)
from export.diffusion.pipelines import TEXT_ENCODER, Pipeline, tokenizer_of
from export.errors import CheckpointError
from export.tensor_files import PICKLED

_PICKLED = tuple(pattern.removeprefix("*") for pattern in PICKLED)
_TOKENIZER = (".json", ".txt", ".model", ".jinja")


def choose_files(
    pipeline: Pipeline, index: dict[str, Any], names: Collection[str], hub_id: str
) -> list[str]:
    """Choose from all files of a checkpoint.

    Args:
        pipeline: What the table knows of it.
        index: The content of its model_index.json.
        names: The paths of all its files.
        hub_id: As messages name it.

    Raises:
        CheckpointError: A component has no weights, or has them pickled only.
    """
    chosen = {f"scheduler/{SCHEDULER_CONFIG_FILE}"}
    for component in component_models(pipeline, index):
        chosen.add(f"{component}/{CONFIG_FILE}")
        entry = index.get(component)
        library = entry[0] if isinstance(entry, list) and entry else ""
        chosen.update(_weights(component, weights_stem(library), names, hub_id))
        if component.startswith(TEXT_ENCODER):
            start = f"{tokenizer_of(component)}/"
            chosen.update(
                name for name in names if name.startswith(start) and name.endswith(_TOKENIZER)
            )
    return sorted(chosen & set(names))  # what lacks is said when the checkpoint is opened


def _weights(component: str, stem: str, names: Collection[str], hub_id: str) -> Iterator[str]:
    """The shards and their index, or the single file, or that in half precision."""
    start = f"{component}/{stem}"
    if (index := f"{start}.safetensors.index.json") in names:
        shard = re.compile(rf"{re.escape(start)}-\d+-of-\d+\.safetensors")
        yield index
        yield from filter(shard.fullmatch, names)
        return
    for single in (f"{start}.safetensors", f"{start}{HALF_PRECISION}.safetensors"):
        if single in names:
            yield single
            return
    own = sorted(name for name in names if name.startswith(f"{component}/"))
    pickled = [name for name in own if name.endswith(_PICKLED)]
    if pickled:
        raise CheckpointError(
            f"{hub_id} has only pickled weights for {component} ({pickled[0]}), which can run code "
            "when they are read: choose a checkpoint in safetensors"
        )
    raise CheckpointError(f"{hub_id} has no weights for {component} ({start}.safetensors)")
