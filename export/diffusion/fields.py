"""The fields of a component's config.json, read with a sentence for each way to be wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from export.errors import CheckpointError


class ConfigFields:
    """One config.json; a default of None means that the field has to be there.

    Every method raises `CheckpointError` where the field is missing or of another type.

    Args:
        file: The file as messages name it, for example `unet/config.json`.
        fields: Its content.
    """

    def __init__(self, file: str, fields: dict[str, Any]) -> None:
        self._file = file
        self._fields = fields

    def integer(self, name: str, default: int | None = None, minimum: int = 1) -> int:
        return self._check_integer(name, self._get(name, default), minimum)

    def optional_integer(self, name: str) -> int | None:
        """A positive number, or None where the field is null or missing."""
        return None if self._fields.get(name) is None else self.integer(name)

    def number(self, name: str, default: float | None = None) -> float:
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(f"{name} = {_show(value)}, which is not a number")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise self.error(f"{name} = {_show(value)}, which is neither true nor false")
        return value

    def integers(self, name: str) -> tuple[int, ...]:
        """A list of positive numbers with at least one."""
        return tuple(self._check_integer(name, item, 1) for item in self._list(name))

    def numbers(self, name: str) -> tuple[float, ...]:
        """A list of numbers with at least one."""
        found = self._list(name)
        for item in found:
            if isinstance(item, bool) or not isinstance(item, int | float):
                raise self.error(f"{_show(item)} in {name}, which is not a number")
        return tuple(map(float, found))

    def for_each(self, name: str, count: int, default: int | None = None) -> tuple[int, ...]:
        """`count` positive numbers: a list of them, or one that holds for all."""
        value = self._get(name, default)
        if not isinstance(value, list):
            return (self._check_integer(name, value, 1),) * count
        numbers = self.integers(name)
        if len(numbers) != count:
            raise self.error(f"{len(numbers)} numbers in {name}, but {count} blocks")
        return numbers

    def nested(
        self, name: str, counts: tuple[int, ...], default: int | None = None
    ) -> tuple[tuple[int, ...], ...]:
        """`counts[i]` positive numbers for each i: one for all, or a list of numbers and lists."""
        value = self._get(name, default)
        entries = value if isinstance(value, list) else [value] * len(counts)
        if len(entries) != len(counts):
            raise self.error(f"{len(entries)} entries in {name}, but {len(counts)} blocks")
        return tuple(
            self._spread(name, entry, count) for entry, count in zip(entries, counts, strict=True)
        )

    def names(self, name: str, supported: tuple[str, ...]) -> tuple[str, ...]:
        """A list of names, all of them supported."""
        found = tuple(self._list(name))
        for item in found:
            if item not in supported:
                raise self._unsupported(name, item, supported)
        return found

    def require(self, supported: Mapping[str, tuple[object, ...]]) -> None:
        """Check fields that can have other values elsewhere; the first one is the default."""
        for name, values in supported.items():
            value = self._fields.get(name, values[0])
            if not any(_is_same(value, one) for one in values):
                raise self._unsupported(name, value, values)

    def error(self, what: str) -> CheckpointError:
        """The error that says what the file has."""
        return CheckpointError(f"{self._file} has {what}")

    def _get(self, name: str, default: object) -> Any:
        value = self._fields.get(name, default)
        if value is None:
            raise CheckpointError(f"{self._file} has no field {name!r}")
        return value

    def _list(self, name: str) -> list[Any]:
        value = self._get(name, None)
        if not isinstance(value, list) or not value:
            raise self.error(f"{name} = {_show(value)}, which is not a list of names or numbers")
        return value

    def _spread(self, name: str, entry: object, count: int) -> tuple[int, ...]:
        numbers = entry if isinstance(entry, list) else [entry] * count
        if len(numbers) != count:
            raise self.error(f"{_show(entry)} in {name} for a block of {count} layers")
        return tuple(self._check_integer(name, number, 1) for number in numbers)

    def _check_integer(self, name: str, value: object, minimum: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise self.error(
                f"{name} = {_show(value)}, which is not an integer of {minimum} or more"
            )
        return value

    def _unsupported(
        self, name: str, value: object, supported: tuple[object, ...]
    ) -> CheckpointError:
        known = " and ".join(map(_show, supported))
        verb = "is" if len(supported) == 1 else "are"
        return self.error(f"{name} = {_show(value)}, but only {known} {verb} supported")


def _is_same(value: object, other: object) -> bool:
    # In Python True equals 1 and False equals 0; in a config they are different.
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _show(value: object) -> str:
    return json.dumps(value)
