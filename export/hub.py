"""Checkpoints from the Hugging Face hub: only what an export reads, resumed where cut off."""

from __future__ import annotations

import re
from pathlib import Path

from export.errors import CheckpointError, ExportError

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")

# Nothing that could run code: no pickles, no Python files.
_FILES = (
    "config.json",
    "model_index.json",  # of image checkpoints, which are not taken from the hub yet
    "generation_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)


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
        CheckpointError: The hub has no such checkpoint, or does not give it to us.
        ExportError: huggingface_hub is not installed, or the hub cannot be reached.
    """
    try:
        from huggingface_hub import errors, snapshot_download
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ModuleNotFoundError:
        raise ExportError(
            f"there is no folder {hub_id}, and to take it from the hub the package "
            "huggingface_hub is needed: pip install 'enginery[export]'"
        ) from None
    if not show_progress:
        disable_progress_bars()
    try:
        folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=list(_FILES)))
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
    return folder, folder.name
