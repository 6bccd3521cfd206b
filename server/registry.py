"""Which engines this server has, and under which names clients find them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from server.errors import ApiError, ModelNotFound

if TYPE_CHECKING:
    from engines.store import EngineFolder
    from server.chat_worker import ChatWorker
    from server.image_worker import ImageWorker
    from server.images.prompts import PromptEncoder
    from server.pooling_worker import PoolingWorker
    from server.text.grammar import GrammarCompiler
    from server.text.pair_prompts import PairPrompts
    from server.text.processor import TextProcessor
    from server.text.tokenizer import Tokenizer
    from server.worker import EngineWorker


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """One engine with its thread.

    `id` is the name it is listed under, logged with and measured by; an answer echoes the name that
    the client sent, which may be one of `aliases` or, with `--accept-any-model`, anything.
    """

    KIND: ClassVar[str] = "any"

    id: str
    folder: EngineFolder
    worker: EngineWorker[Any, Any, Any]
    aliases: tuple[str, ...] = ()  # further names, listed like `id`

    @property
    def names(self) -> tuple[str, ...]:
        return (self.id, *self.aliases)

    @property
    def kind(self) -> str:
        return self.KIND


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatModel(ServedModel):
    """A language model with its text layer."""

    KIND: ClassVar[str] = "chat"

    worker: ChatWorker
    text: TextProcessor
    grammars: GrammarCompiler

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer."""
        spec = self.folder.manifest.chat
        return () if spec is None else spec.eos_token_ids


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageModel(ServedModel):
    """An image model with the tokenizers of its text encoders."""

    KIND: ClassVar[str] = "image"

    worker: ImageWorker
    prompts: PromptEncoder


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingModel(ServedModel):
    """A model that reads texts and gives a row of numbers for each."""

    worker: PoolingWorker


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingModel(PoolingModel):
    """A model of embeddings; `width` is how many numbers they have."""

    KIND: ClassVar[str] = "embedding"

    tokenizer: Tokenizer
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankModel(PoolingModel):
    """A model of relevance with the prompts that it is asked by."""

    KIND: ClassVar[str] = "rerank"

    prompts: PairPrompts


ModelT = TypeVar("ModelT", bound=ServedModel)


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

    def find(self, name: str, model_type: type[ModelT]) -> ModelT:
        """The model that answers a request of a kind for `name`.

        With `--accept-any-model` an unknown name means the only engine of that kind.

        Raises:
            ModelNotFound: No engine of that kind answers to the name.
        """
        model = self._by_name.get(name)
        if isinstance(model, model_type):
            return model
        of_kind = self.of_type(model_type)
        if self._accept_any_model and len(of_kind) == 1:
            return of_kind[0]
        if model is not None:
            kind = model_type.KIND
            known = [name for name, other in self.names if isinstance(other, model_type)]
            hint = f"; of that kind this server has {_quoted(known)}" if known else ""
            raise ModelNotFound(
                f"The model {name!r} is of kind {model.kind} and does not answer {kind} "
                f"requests{hint}."
            )
        raise self._not_found(name)

    def find_only(self, model_type: type[ModelT]) -> ModelT:
        """The model of a request that names none: the only one of its kind.

        Raises:
            ModelNotFound: There is none.
            ApiError: There are several.
        """
        of_kind = self.of_type(model_type)
        if len(of_kind) == 1:
            return of_kind[0]
        kind = model_type.KIND
        if not of_kind:
            raise ModelNotFound(f"This server has no model of kind {kind}.")
        raise ApiError(
            400,
            f"model is missing, and this server has several of kind {kind}: "
            f"{_quoted(model.id for model in of_kind)}",
            param="model",
            code="invalid_value",
        )

    def of_type(self, model_type: type[ModelT]) -> list[ModelT]:
        """The models of one kind."""
        return [model for model in self.models if isinstance(model, model_type)]

    def _not_found(self, name: str) -> ModelNotFound:
        return ModelNotFound(
            f"The model {name!r} does not exist; this server has {_quoted(self._by_name)}."
        )


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
