"""Where grammars hold: not in the reasoning, not in free text, and in every call."""

from __future__ import annotations

import numpy as np
import pytest

from server.text.constraints import AfterReasoning, ReasoningTokens, WithinCalls
from server.text.grammar import GrammarCompiler, GrammarSpec
from server.text.tool_calls import Function, body_grammar
from tests.server.masks import allowed_token_ids
from tests.server.test_grammar import EOS, PATH, TOKENIZER, VOCAB_SIZE


def ids(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False).ids


(THINK,), (END_THINK,), (CALL,) = ids("<think>"), ids("</think>"), ids("<tool_call>")
TOKENS = ReasoningTokens(
    begin=THINK,
    end=END_THINK,
    closing=(*ids("\n"), END_THINK),
    line_breaks=frozenset([*ids("\n"), *(ids("\n\n") if len(ids("\n\n")) == 1 else [])]),
)


@pytest.fixture(scope="module")
def compiler() -> GrammarCompiler:
    return GrammarCompiler(PATH.read_text, VOCAB_SIZE, [EOS])


def allowed(constraint) -> set[int] | None:
    mask = constraint.mask()
    return None if mask is None else set(allowed_token_ids(mask, VOCAB_SIZE).tolist())


def after_reasoning(compiler, *, is_open=False, budget=None, choices=("yes", "no")):
    inner = compiler.new_state(GrammarSpec.choice(choices, "x")) if choices else None
    return AfterReasoning(TOKENS, inner, is_open=is_open, budget=budget, vocab_size=VOCAB_SIZE)


def feed(constraint, text: str) -> None:
    for token_id in ids(text):
        now = allowed(constraint)
        assert now is None or token_id in now, f"{TOKENIZER.id_to_token(token_id)!r} in {text!r}"
        constraint.accept(token_id)


def test_the_reasoning_is_free_and_the_answer_is_not(compiler):
    constraint = after_reasoning(compiler)
    assert THINK in allowed(constraint)
    feed(constraint, "<think>")
    assert allowed(constraint) is None
    feed(constraint, "anything <tool_call> at all")
    feed(constraint, "</think>")
    feed(constraint, "\n")
    assert THINK not in allowed(constraint)
    feed(constraint, "yes")
    assert allowed(constraint) == {EOS}


def test_an_answer_without_reasoning_is_constrained_from_its_first_token(compiler):
    constraint = after_reasoning(compiler)
    feed(constraint, "no")
    assert allowed(constraint) == {EOS}


def test_line_breaks_after_the_reasoning_may_be_left_out(compiler):
    constraint = after_reasoning(compiler, is_open=True)
    feed(constraint, "hm</think>no")
    assert allowed(constraint) == {EOS}


def test_a_budget_closes_the_block_and_the_answer_follows(compiler):
    constraint = after_reasoning(compiler, budget=3)
    feed(constraint, "<think>")
    for _ in range(3):
        assert allowed(constraint) is None
        constraint.accept(ids("a")[0])
    for token_id in TOKENS.closing:
        assert allowed(constraint) == {token_id}
        constraint.accept(token_id)
    feed(constraint, "yes")


def test_a_budget_of_nothing_closes_at_once_and_needs_no_grammar(compiler):
    constraint = after_reasoning(compiler, budget=0, is_open=True, choices=())
    assert allowed(constraint) == {TOKENS.closing[0]}
    for token_id in TOKENS.closing:
        constraint.accept(token_id)
    assert allowed(constraint) is None


def within_calls(compiler, *, is_parallel=True):
    grammar = body_grammar("json", [Function("f", {"type": "object", "properties": {}})])
    spec = GrammarSpec("lark", grammar, "tools")
    return WithinCalls(
        CALL,
        lambda: compiler.new_state(spec),
        end=[EOS],
        is_parallel=is_parallel,
        vocab_size=VOCAB_SIZE,
    )


BODY = '\n{"name": "f", "arguments": {}}\n</tool_call>'


def test_calls_are_constrained_and_the_text_around_them_is_not(compiler):
    constraint = within_calls(compiler)
    feed(constraint, "Let me see.")
    assert allowed(constraint) is None
    for _ in range(2):
        feed(constraint, "<tool_call>")
        assert allowed(constraint) is not None
        feed(constraint, BODY)
        assert allowed(constraint) is None


def test_where_one_call_is_the_most_only_the_end_follows_it(compiler):
    constraint = within_calls(compiler, is_parallel=False)
    feed(constraint, "<tool_call>" + BODY)
    assert allowed(constraint) == {EOS}


def test_masks_fit_the_vocabulary(compiler):
    for constraint in (after_reasoning(compiler), within_calls(compiler, is_parallel=False)):
        mask = constraint.mask()
        assert mask is None or (mask.dtype == np.uint32 and mask.size == -(-VOCAB_SIZE // 32))


def endless(compiler):
    """A grammar of which the parser can follow no more than `cho`."""
    texts = " | ".join(f'"choice number {index}"' for index in range(2_500))
    return compiler.new_state(GrammarSpec("lark", f"start: {texts}", "x"))


def give_up(constraint, begin: str) -> None:
    assert constraint.failure is None
    feed(constraint, begin)
    constraint.accept(next(iter(allowed(constraint))))
    assert allowed(constraint) is not None
    constraint.accept(EOS)


def test_a_grammar_that_cannot_be_followed_says_so_behind_the_reasoning(compiler):
    constraint = AfterReasoning(
        TOKENS, endless(compiler), is_open=False, budget=None, vocab_size=VOCAB_SIZE
    )
    give_up(constraint, "<think>so</think>\n")
    assert constraint.failure.param == "x"


def test_a_call_that_cannot_be_followed_says_so(compiler):
    constraint = WithinCalls(
        CALL, lambda: endless(compiler), end=[EOS], is_parallel=True, vocab_size=VOCAB_SIZE
    )
    give_up(constraint, "<tool_call>")
    assert constraint.failure.param == "x"
