"""Structured output: schemas, regular expressions and grammars into masks over the vocabulary.

The grammars are llguidance's; this is what stands around them: limits, a bounded cache, the
tokenizer that is built once and off the start-up path, and the state of each answer.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from engines.errors import InvalidRequest
from engines.llm.constraint import TokenMask

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

MAX_GRAMMAR_LENGTH = 65_536  # characters; the largest compile within a second
MAX_REGEX_LENGTH = 16_384  # whose states can be as many as the square of it
_CACHE_SIZE = 64  # compiled grammars, least recently used go first

_LEXER_FUEL = 200_000  # states and steps; a fifth of the library's, which allows seconds

# Enough to indent by, and not so much that a weak model loses itself in white space for ever.
_WHITESPACE = r"[ \t\n\r]{0,40}"

GrammarKind = Literal["json_object", "json_schema", "regex", "choice", "lark"]


@dataclass(frozen=True, slots=True)
class GrammarSpec:
    """What an answer has to be.

    Attributes:
        kind: How `source` is to be read.
        source: The text of a schema, an expression or a grammar; of a choice a JSON list.
        param: The request's field, for errors.
    """

    kind: GrammarKind
    source: str
    param: str

    @classmethod
    def json_object(cls, param: str) -> GrammarSpec:
        """Any JSON object."""
        return cls("json_object", '{"type": "object"}', param)

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | bool | str, param: str) -> GrammarSpec:
        """A JSON value that the schema allows; `schema` may be JSON text.

        Raises:
            InvalidRequest: It is nested too deep to be written.
        """
        try:
            text = schema if isinstance(schema, str) else _dump(schema)
        except RecursionError:
            raise InvalidRequest(
                f"{param} cannot be used as a JSON schema: it is nested too deep", param
            ) from None
        return cls("json_schema", text, param)

    @classmethod
    def choice(cls, choices: Iterable[str], param: str) -> GrammarSpec:
        """One of some texts."""
        return cls("choice", _dump(list(choices)), param)


class GrammarState:
    """One answer's place in its grammar; implements `AnswerConstraint`."""

    def __init__(self, matcher: LLMatcher, num_words: int, param: str) -> None:
        self._lock = threading.Lock()  # a matcher refuses a second thread
        self._matcher = matcher
        self._mask: TokenMask = np.empty((1, num_words), np.uint32)
        self._param = param
        self.failure: InvalidRequest | None = None

    def mask(self) -> TokenMask:
        from llguidance.numpy import fill_next_token_bitmask

        # Where the grammar has ended, or gave up, only the end of the answer is allowed.
        with self._lock:
            fill_next_token_bitmask(self._matcher, self._mask.view(np.int32))
            self._note_failure()
        mask: TokenMask = self._mask[0]
        return mask

    def accept(self, token_id: int) -> None:
        with self._lock:
            self._matcher.consume_token(token_id)
            self._note_failure()

    def forced_tokens(self) -> list[int]:
        with self._lock:
            tokens: list[int] = self._matcher.compute_ff_tokens()
        return tokens

    @property
    def is_complete(self) -> bool:
        """Whether nothing but the end can follow."""
        return self._matcher.is_stopped() and self.failure is None

    def _note_failure(self) -> None:
        if self.failure is None and self._matcher.is_error():
            self.failure = InvalidRequest(
                f"{self._param} became too complex to be followed: "
                f"{_first_line(self._matcher.get_error())}",
                self._param,
            )


class GrammarCompiler:
    """Compiles grammars for one engine's tokenizer; any thread may use it.

    Args:
        read_tokenizer: Reads the engine's tokenizer.json, when it is first needed.
        vocab_size: Columns of the logits that can be sampled.
        eos_token_ids: Tokens that end an answer.
    """

    def __init__(
        self, read_tokenizer: Callable[[], str], vocab_size: int, eos_token_ids: Iterable[int]
    ) -> None:
        self._read_tokenizer = read_tokenizer
        self._vocab_size = vocab_size
        self._eos_token_ids = sorted(eos_token_ids)
        self._lock = threading.Lock()
        self._tokenizer: LLTokenizer | None = None
        self._compiled: OrderedDict[GrammarSpec, LLMatcher] = OrderedDict()

    def compile(self, spec: GrammarSpec) -> None:
        """Compile a grammar, unless it was compiled a while ago; takes up to a second.

        Raises:
            InvalidRequest: It is no grammar, too large or too complex; the message names the field.
        """
        self._matcher(spec)

    def new_state(self, spec: GrammarSpec) -> GrammarState:
        """The state of an answer that has not begun.

        Raises:
            InvalidRequest: As `compile`.
        """
        num_words = -(-self._vocab_size // 32)
        return GrammarState(self._matcher(spec).deep_copy(), num_words, spec.param)

    def _matcher(self, spec: GrammarSpec) -> LLMatcher:
        with self._lock:
            found = self._compiled.get(spec)
            if found is not None:
                self._compiled.move_to_end(spec)
                return found
            tokenizer = self._open_tokenizer()
        matcher = _compile(spec, tokenizer)
        with self._lock:
            self._compiled[spec] = matcher
            if len(self._compiled) > _CACHE_SIZE:
                self._compiled.popitem(last=False)
        return matcher

    def _open_tokenizer(self) -> LLTokenizer:
        if self._tokenizer is None:
            from llguidance import LLTokenizer

            self._tokenizer = LLTokenizer(
                self._read_tokenizer(),
                n_vocab=self._vocab_size,
                eos_token=self._eos_token_ids,
            )
        return self._tokenizer


def _compile(spec: GrammarSpec, tokenizer: LLTokenizer) -> LLMatcher:
    from llguidance import LLMatcher, LLParserLimits

    limit = MAX_REGEX_LENGTH if spec.kind == "regex" else MAX_GRAMMAR_LENGTH
    if len(spec.source) > limit:
        raise InvalidRequest(
            f"{spec.param} has {len(spec.source)} characters, but {_NAMES[spec.kind]} may have at "
            f"most {limit}",
            spec.param,
        )
    try:
        limits = LLParserLimits(initial_lexer_fuel=_LEXER_FUEL)
        matcher = LLMatcher(tokenizer, _grammar(spec), log_level=0, limits=limits)
        if not matcher.is_error():
            matcher.compute_bitmask()  # here, as the first one can take long and can fail
        problem = matcher.get_error() if matcher.is_error() else _problem_ahead(matcher, tokenizer)
    except (ValueError, RecursionError) as error:
        problem = str(error)
    if problem is not None:
        raise InvalidRequest(
            f"{spec.param} cannot be used as {_NAMES[spec.kind]}: {_first_line(problem)}",
            spec.param,
        )
    return matcher


def _problem_ahead(matcher: LLMatcher, tokenizer: LLTokenizer) -> str | None:
    """What is wrong with where the first key of an object begins: few places allow as much."""
    ahead = matcher.deep_copy()
    ahead.try_consume_tokens(tokenizer.tokenize_str('{"'))
    ahead.compute_bitmask()
    return ahead.get_error() if ahead.is_error() else None


_NAMES: Mapping[GrammarKind, str] = {
    "json_object": "a JSON schema",
    "json_schema": "a JSON schema",
    "regex": "a regular expression",
    "choice": "a choice",
    "lark": "a Lark grammar",
}


def _grammar(spec: GrammarSpec) -> str:
    """The grammar as llguidance takes it."""
    from llguidance import LLMatcher

    match spec.kind:
        case "json_object" | "json_schema":
            source = "{}" if spec.source.strip() == "true" else spec.source
            return LLMatcher.grammar_from_json_schema(
                source, overrides={"whitespace_pattern": _WHITESPACE}
            )
        case "regex":
            return LLMatcher.grammar_from_regex(spec.source)
        case "choice":
            texts = " | ".join(map(_dump, json.loads(spec.source)))
            if not texts:
                raise ValueError("it has no texts to choose from")
            # A terminal is one item of the parser, however many texts it has.
            return LLMatcher.grammar_from_lark(f"start: CHOICE\nCHOICE: {texts}")
        case "lark":
            return LLMatcher.grammar_from_lark(spec.source)


def _first_line(problem: str) -> str:
    if "NoExtensionBias" in problem:  # no token can begin an answer
        return "it allows no answer"
    line = problem.strip().splitlines()[0] if problem.strip() else "it is not valid"
    return line if len(line) <= 200 else f"{line[:197]}..."


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
