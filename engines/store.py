"""Find compiled engines below a folder and prove that their files are the exported ones."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from engines.errors import EngineCorrupt, EngineNotFound
from engines.manifest import MANIFEST_NAME, Manifest, read_manifest
from engines.verified import FileState, is_known, remember

_EXPORT_HINT = "compile one with `python -m export --checkpoint-path CHECKPOINT`"


@dataclass(frozen=True, slots=True)
class EngineFolder:
    """A folder that holds a readable `engine.json`."""

    path: Path
    manifest: Manifest


def find_engines(engine_dir: Path) -> list[EngineFolder]:
    """Every engine at or below `engine_dir`, ordered by path.

    Hidden folders are passed over: a build in progress is one.

    Raises:
        EngineNotFound: The folder does not exist or holds no engine.
        EngineError: An `engine.json` was found that cannot be used.
    """
    if not engine_dir.is_dir():
        raise EngineNotFound(f"the engine folder {engine_dir} does not exist: {_EXPORT_HINT}")
    paths = sorted(path.parent for path in _manifests(engine_dir))
    if not paths:
        raise EngineNotFound(f"the folder {engine_dir} holds no engine: {_EXPORT_HINT}")
    return [EngineFolder(path, read_manifest(path)) for path in paths]


def check_files(folder: EngineFolder, *, contents: bool = True) -> None:
    """Compare every file of the engine with the sizes and, if asked, the hashes in its manifest.

    What was hashed before and has not changed since (see `engines.verified`) is not read again.

    Raises:
        EngineCorrupt: A file is missing, has another size or another content.
    """
    states = {}
    for name, entry in folder.manifest.files.items():
        path = folder.path / name
        if not path.resolve().is_relative_to(folder.path.resolve()):
            raise EngineCorrupt(f"the engine file {path} is a link that leaves its folder")
        if not path.is_file():
            raise EngineCorrupt(f"the engine file {path} is missing: export the checkpoint again")
        states[name] = state = FileState.of(path, entry.sha256)
        if state.size != entry.size:
            raise EngineCorrupt(
                f"the engine file {path} has {state.size} bytes, but its manifest says "
                f"{entry.size}: export the checkpoint again"
            )
    if contents and not is_known(folder.path, states.items()):
        for name, state in states.items():
            if sha256(folder.path / name) != state.sha256:
                raise EngineCorrupt(
                    f"the engine file {folder.path / name} was changed after its export: export "
                    "the checkpoint again"
                )
        remember(folder.path, states)


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _manifests(folder: Path) -> list[Path]:
    found = []
    for entry in folder.iterdir():
        if entry.name == MANIFEST_NAME and entry.is_file():
            found.append(entry)
        elif entry.is_dir() and not entry.name.startswith((".", "__")):
            found.extend(_manifests(entry))
    return found
