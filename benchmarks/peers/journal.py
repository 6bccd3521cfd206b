"""Measurements of a long comparison as they are made, so that it can be cut short and go on."""

from __future__ import annotations

from pathlib import Path

import msgspec

from benchmarks.peers.workload import ClientsMeasurement, EngineMeasurement, Stage


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One piece: a contestant in a stage of a round.

    `settings` is what was asked for: pieces of other settings are left alone. `others_share` is
    the share of all cores that other programs used meanwhile.
    """

    settings: str
    stage: Stage
    label: str
    round: int
    seconds: float
    others_share: float | None
    engine: EngineMeasurement | None = None
    clients: ClientsMeasurement | None = None

    @property
    def key(self) -> tuple[Stage, str, int]:
        return self.stage, self.label, self.round


class Journal:
    """The pieces of one run, in a JSONL file if one is given."""

    def __init__(self, path: Path | None, settings: str) -> None:
        self._path = path
        self.settings = settings
        self.entries: dict[tuple[Stage, str, int], Entry] = {}
        if path is not None and path.exists():
            for line in path.read_bytes().splitlines():
                self._take(line)

    def add(self, entry: Entry) -> None:
        """Keep a piece, on disk first."""
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                file.write(msgspec.json.encode(entry) + b"\n")
        self.entries[entry.key] = entry

    def of(self, stage: Stage, label: str) -> list[Entry]:
        """A contestant's pieces of a stage, by round."""
        found = [e for e in self.entries.values() if (e.stage, e.label) == (stage, label)]
        return sorted(found, key=lambda entry: entry.round)

    def _take(self, line: bytes) -> None:
        try:
            entry = msgspec.json.decode(line, type=Entry)
        except msgspec.DecodeError:
            return  # the end of a run that was killed
        if entry.settings == self.settings:
            self.entries[entry.key] = entry
