"""Which engines this server has, and under which names clients find them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from server.errors import ModelNotFound

if TYPE_CHECKING:
    from engines.store import EngineFolder
    from server.text.processor import TextProcessor
    from server.worker import EngineWorker


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One engine with its thread and its text layer.

    `id` is the name it is listed under, logged with and measured by; an answer echoes the name that
    the client sent, which may be one of `aliases` or, with `--accept-any-model`, anything.
    """

    id: str
    folder: EngineFolder
    worker: EngineWorker
    text: TextProcessor
    aliases: tuple[str, ...] = ()  # further names, listed like `id`

    @property
    def names(self) -> tuple[str, ...]:
        return (self.id, *self.aliases)

    @property
    def kind(self) -> str:
        return self.folder.manifest.kind


class ModelRegistry:
    """The served models, in the order in which they are listed; never empty.

    Raises:
        ValueError: No model, or two that share a name.
    """

    def __init__(self, models: Sequence[ServedModel], *, accept_any_model: bool = False) -> None:
        if not models:
            raise ValueError("a server needs at least one engine")
        self.models = tuple(models)
        self._accept_any_model = accept_any_model
        self._by_name: dict[str, ServedModel] = {}
        for model in self.models:
            for name in model.names:
                other = self._by_name.setdefault(name, model)
                if other is not model:
                    raise ValueError(
                        f"the engines in {other.folder.path} and {model.folder.path} are both "
                        f"named {name!r}: give one another name with --served-model-name"
                    )

    @property
    def names(self) -> list[tuple[str, ServedModel]]:
        """Every name that is listed, with its model."""
        return list(self._by_name.items())

    def get(self, name: str) -> ServedModel:
        """The model listed under `name`, of whatever kind.

        Raises:
            ModelNotFound: Nothing is listed under that name.
        """
        model = self._by_name.get(name)
        if model is None:
            raise self._not_found(name)
        return model

    def find(self, name: str, kind: str = "chat") -> ServedModel:
        """The model that answers a request of `kind` for `name`.

        With `--accept-any-model` an unknown name means the only engine of that kind.

        Raises:
            ModelNotFound: No engine of that kind answers to the name.
        """
        model = self._by_name.get(name)
        if model is not None and model.kind == kind:
            return model
        of_kind = [model for model in self.models if model.kind == kind]
        if self._accept_any_model and len(of_kind) == 1:
            return of_kind[0]
        if model is not None:
            raise ModelNotFound(
                f"The model {name!r} is of kind {model.kind} and does not answer {kind} requests."
            )
        raise self._not_found(name)

    def _not_found(self, name: str) -> ModelNotFound:
        served = ", ".join(repr(known) for known in self._by_name)
        return ModelNotFound(f"The model {name!r} does not exist; this server has {served}.")
