"""What one request's answers may look like, and how their text is to be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from engines.errors import InvalidRequest
from server.chat_task import ChatTask
from server.errors import ApiError
from server.registry import ChatModel
from server.text.chat_format import ReasoningCounter, ReasoningState
from server.text.constraints import AfterReasoning, AnswerConstraint, WithinCalls
from server.text.grammar import GrammarSpec
from server.text.parsing.answer_parser import AnswerParser
from server.text.parsing.events import AnswerReader
from server.text.parsing.react import OBSERVATION, THOUGHT, ReactParser
from server.text.parsing.reasoning import ReasoningParser
from server.text.tool_calls import (
    CallForm,
    Function,
    body_grammar,
    calls_grammar,
    calls_or_value_grammar,
    new_call_parser,
)

_LONGEST_THOUGHT_MARK = 16  # tokens of a small vocabulary


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """Makes the constraint and the parser of each answer.

    Attributes:
        new_constraint: None where every token may come.
        new_parser: Reads an answer's text.
        stops: Strings that end an answer, beside those of the request.
        new_counter: Counts the tokens of the reasoning; None where there is none.
    """

    new_constraint: Callable[[], AnswerConstraint] | None
    new_parser: Callable[[], AnswerReader]
    stops: tuple[str, ...]
    new_counter: Callable[[], ReasoningCounter] | None


def output_format(model: ChatModel, task: ChatTask, prompt: list[int]) -> OutputFormat:
    """Compile what a task asks of its answers; takes up to a second for a large schema.

    Raises:
        InvalidRequest: A schema or a grammar cannot be used; the message names the field.
        ApiError: The model cannot do what is asked for.
    """
    chat_format = model.text.chat_format
    state = chat_format.reasoning_state(prompt)
    functions = task.functions
    form = _call_form(model, task) if functions else None
    answer = _answer_constraint(model, task, form, functions)
    return OutputFormat(
        _behind_reasoning(model, task, state, answer),
        _new_parser(model, form, functions, state, prompt),
        (OBSERVATION,) if form == "react" else (),
        _counter(model, state),
    )


def _new_parser(
    model: ChatModel,
    form: CallForm | None,
    functions: list[Function],
    state: ReasoningState,
    prompt: list[int],
) -> Callable[[], AnswerReader]:
    if form == "react":
        is_thinking = model.text.decode(prompt[-_LONGEST_THOUGHT_MARK:]).endswith(f"\n{THOUGHT}")
        return lambda: ReactParser(is_thinking=is_thinking)
    return lambda: AnswerParser(
        None if form is None else new_call_parser(form, functions),
        None if state == "none" else ReasoningParser(is_open=state == "open"),
    )


def _counter(model: ChatModel, state: ReasoningState) -> Callable[[], ReasoningCounter] | None:
    tokens = model.text.chat_format.reasoning
    if tokens is None or state == "none":
        return None
    return lambda: ReasoningCounter(tokens, state)


def _call_form(model: ChatModel, task: ChatTask) -> CallForm:
    form = model.text.chat_format.call_form
    if form is None:
        raise ApiError(
            400,
            f"{task.functions_field} is set, but the chat template of {model.id!r} knows no "
            "function calls",
            param=task.functions_field,
            code="unsupported_value",
        )
    return form


def _answer_constraint(
    model: ChatModel,
    task: ChatTask,
    form: CallForm | None,
    functions: list[Function],
) -> Callable[[], AnswerConstraint] | None:
    grammar = task.grammar
    if form is None:
        return None if grammar is None else compiled(model, grammar)
    if not task.must_call and grammar is None:
        return _within_calls(model, task, form, functions)
    if not task.must_call:
        assert grammar is not None
        return compiled(model, _calls_or(model, task, form, functions, grammar))
    if grammar is not None:
        raise InvalidRequest(
            f"{grammar.param} is set, but tool_choice leaves no answer beside a call", grammar.param
        )
    source = _source(task, calls_grammar, form, functions, model)
    return compiled(model, GrammarSpec("lark", source, task.functions_field))


def _within_calls(
    model: ChatModel, task: ChatTask, form: CallForm, functions: list[Function]
) -> Callable[[], AnswerConstraint] | None:
    begin = model.text.chat_format.call_begin
    if begin is None:
        return None  # no single token shows where a call begins
    try:
        spec = GrammarSpec("lark", body_grammar(form, functions), task.functions_field)
        model.grammars.compile(spec)
    except (ValueError, InvalidRequest):
        # Nothing was forced: a schema that cannot be enforced is still one that can be read.
        anything = [Function(function.name) for function in functions]
        spec = GrammarSpec("lark", body_grammar(form, anything), task.functions_field)
        model.grammars.compile(spec)
    return lambda: WithinCalls(
        begin,
        lambda: model.grammars.new_state(spec),
        end=model.eos_token_ids,
        is_parallel=task.is_parallel,
        vocab_size=model.worker.vocab_size,
    )


def _calls_or(
    model: ChatModel,
    task: ChatTask,
    form: CallForm,
    functions: list[Function],
    grammar: GrammarSpec,
) -> GrammarSpec:
    """Either calls or an answer of the given form."""
    if grammar.kind not in ("json_object", "json_schema"):
        raise InvalidRequest(
            f"{grammar.param} is set beside tools, but only a JSON schema can be", grammar.param
        )
    model.grammars.compile(grammar)  # whose error names the right field
    source = calls_or_value_grammar(
        form,
        functions,
        json.loads(grammar.source),
        is_parallel=task.is_parallel,
        marks_are_tokens=model.text.chat_format.call_begin is not None,
    )
    return GrammarSpec("lark", source, task.functions_field)


def _source(
    task: ChatTask,
    write: Callable[..., str],
    form: CallForm,
    functions: list[Function],
    model: ChatModel,
) -> str:
    try:
        return write(
            form,
            functions,
            is_parallel=task.is_parallel,
            marks_are_tokens=model.text.chat_format.call_begin is not None,
        )
    except ValueError as error:
        field = task.functions_field
        raise InvalidRequest(f"{field} cannot be enforced: {error}", field) from None


def compiled(model: ChatModel, spec: GrammarSpec) -> Callable[[], AnswerConstraint]:
    """Compile a grammar; makes the constraint of each answer.

    Raises:
        InvalidRequest: It cannot be used; the message names the field.
    """
    model.grammars.compile(spec)
    return lambda: model.grammars.new_state(spec)


def _behind_reasoning(
    model: ChatModel,
    task: ChatTask,
    state: ReasoningState,
    answer: Callable[[], AnswerConstraint] | None,
) -> Callable[[], AnswerConstraint] | None:
    tokens = model.text.chat_format.reasoning
    budget = task.thinking_budget
    if tokens is None or state == "none" or (answer is None and budget is None):
        return answer
    return lambda: AfterReasoning(
        tokens,
        None if answer is None else answer(),
        is_open=state == "open",
        budget=budget,
        vocab_size=model.worker.vocab_size,
    )
