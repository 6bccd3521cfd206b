"""Which names every engine is listed under."""

from __future__ import annotations

from collections.abc import Sequence

from engines.errors import EngineError
from engines.store import EngineFolder


def served_names(folders: Sequence[EngineFolder], given: Sequence[str]) -> list[tuple[str, ...]]:
    """The names that each engine is listed under: those given to it, or else its id.

    Args:
        folders: The engines.
        given: `NAME=ENGINE`, or `NAME` where there is one engine.

    Raises:
        EngineError: Two engines have one id or one name, or a name stands for no engine.
    """
    ids = [folder.manifest.id for folder in folders]
    _check_unique(folders, [(engine_id,) for engine_id in ids])
    aliases: dict[str, list[str]] = {engine_id: [] for engine_id in ids}
    for entry in given:
        name, _, engine_id = entry.rpartition("=")
        if not name:
            name, engine_id = entry, ids[0]
            if len(ids) > 1:
                raise EngineError(
                    f"--served-model-name {entry} could be any of {', '.join(ids)}: "
                    f"write {entry}=ENGINE"
                )
        if engine_id not in aliases:
            raise EngineError(
                f"--served-model-name {entry} names the engine {engine_id!r}, but there is only "
                f"{', '.join(ids)}"
            )
        if name not in aliases[engine_id]:
            aliases[engine_id].append(name)
    names = [tuple(aliases[engine_id]) or (engine_id,) for engine_id in ids]
    _check_unique(folders, names)
    return names


def _check_unique(folders: Sequence[EngineFolder], names: Sequence[tuple[str, ...]]) -> None:
    owners: dict[str, EngineFolder] = {}
    for folder, its_names in zip(folders, names, strict=True):
        for name in its_names:
            other = owners.setdefault(name, folder)
            if other is not folder:
                raise EngineError(
                    f"the engines in {other.path} and {folder.path} are both named {name!r}: "
                    "serve one of them, or export one again with --name"
                )
