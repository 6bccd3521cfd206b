"""Checkpoints from the Hugging Face hub: only what an export reads, resumed where cut off."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Protocol

from export.checkpoint import read_json_object
from export.diffusion.checkpoint import INDEX_FILE, find_pipeline, is_diffusion_checkpoint
from export.diffusion.hub_files import choose_files
from export.errors import CheckpointError, ExportError
from export.pooling.task import TASK_FILES

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")

_FIRST_FILES = ("config.json", INDEX_FILE)  # one of them says what the checkpoint is
# Nothing that could run code: no pickles, no Python files.
_CHAT_FILES = (
    "config.json",
    "generation_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "qwen.tiktoken",
    "tokenizer_config.json",
    "chat_template.jinja",
    *TASK_FILES,
)


class Fetch(Protocol):
    """Brings the files of a checkpoint that match patterns; gives the folder they are in."""

    def __call__(self, patterns: Collection[str]) -> Path: ...


def is_hub_id(text: str) -> bool:
    """Whether the text has the form OWNER/NAME."""
    return _HUB_ID.fullmatch(text) is not None


def download_checkpoint(
    hub_id: str, revision: str | None, *, show_progress: bool
) -> tuple[Path, str]:
    """Fetch a checkpoint into the hub's own cache; a token is taken from the environment.

    Returns:
        The folder, and the commit that the revision stands for.

    Raises:
        CheckpointError: The hub has no such checkpoint, does not give it to us, or it is an image
            checkpoint that cannot be compiled.
        ExportError: huggingface_hub is not installed, or the hub cannot be reached.
    """
    try:
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ModuleNotFoundError:
        raise ExportError(
            f"there is no folder {hub_id}, and to take it from the hub the package "
            "huggingface_hub is needed: pip install 'enginery[export]'"
        ) from None
    if not show_progress:
        disable_progress_bars()
    folder = _fetch(hub_id, revision, _FIRST_FILES)
    # From here on of one commit, even where the revision moves on meanwhile.
    fetch = partial(_fetch, hub_id, folder.name)
    if is_diffusion_checkpoint(folder):
        folder = _fetch_image(hub_id, folder, fetch)
    else:
        folder = fetch(_CHAT_FILES)
    return folder, folder.name


def _fetch_image(hub_id: str, folder: Path, fetch: Fetch) -> Path:
    """The components that the pipeline has; one that is not supported costs no download."""
    index = read_json_object(folder / INDEX_FILE)
    names = _list_files(hub_id, folder)
    return fetch([INDEX_FILE, *choose_files(find_pipeline(index), index, names, hub_id)])


def _list_files(hub_id: str, folder: Path) -> list[str]:
    """All files of the checkpoint; without the hub those that were fetched before."""
    from huggingface_hub import HfApi

    try:
        siblings = HfApi().model_info(hub_id, revision=folder.name).siblings
    except Exception:  # the errors of its HTTP libraries have no common class
        return [path.relative_to(folder).as_posix() for path in folder.rglob("*.*")]
    return [entry.rfilename for entry in siblings or ()]


def _fetch(hub_id: str, revision: str | None, patterns: Collection[str]) -> Path:
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=list(patterns)))
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
        refusals = {  # a gated repository is also one that is not found
            errors.GatedRepoError: f"{hub_id} is gated: accept its terms on the hub, set HF_TOKEN",
            errors.RepositoryNotFoundError: f"there is no folder {hub_id}, and the hub has no "
            "checkpoint of that id (a private one needs HF_TOKEN)",
            errors.RevisionNotFoundError: f"{hub_id} has no revision {revision} on the hub",
        }
        for kind, sentence in refusals.items():
            if isinstance(error, kind):
                raise CheckpointError(sentence) from None
        reason = str(error).strip().splitlines()[0]
        raise ExportError(
            f"there is no folder {hub_id}, and it could not be downloaded: {reason}"
        ) from None
