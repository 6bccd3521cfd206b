"""Grammars on the demo's tokenizer: what they allow, and which are refused."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from engines.errors import InvalidRequest
from server.text.grammar import MAX_GRAMMAR_LENGTH, GrammarCompiler, GrammarSpec
from tests.server.masks import allowed_token_ids

PATH = Path(__file__).parents[2] / "demos" / "demo-chat" / "tokenizer.json"
TOKENIZER = Tokenizer.from_file(str(PATH))
VOCAB_SIZE = TOKENIZER.get_vocab_size()
EOS = TOKENIZER.token_to_id("<|im_end|>")
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def compiler() -> GrammarCompiler:
    return GrammarCompiler(PATH.read_text, VOCAB_SIZE, [EOS])


def write(compiler: GrammarCompiler, spec: GrammarSpec, seed: int, max_tokens: int = 300):
    """A random answer within the grammar; None when it did not end by itself."""
    state, rng, token_ids = compiler.new_state(spec), np.random.default_rng(seed), []
    for _ in range(max_tokens):
        allowed = allowed_token_ids(state.mask(), VOCAB_SIZE)
        assert allowed.size, "a grammar has to allow something"
        # The end, where it may come: random text would go on for ever.
        token_id = EOS if EOS in allowed else int(rng.choice(allowed))
        if token_id == EOS:
            return TOKENIZER.decode(token_ids, skip_special_tokens=False)
        state.accept(token_id)
        token_ids.append(token_id)
    return None


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_what_is_written_within_a_schema_validates(compiler, seed):
    text = write(compiler, GrammarSpec.json_schema(PERSON, "response_format"), seed)
    if text is not None:
        person = json.loads(text)
        assert person.keys() == {"name", "age"}
        assert isinstance(person["age"], int)
        assert person["age"] >= 0


def test_any_object_is_an_object(compiler):
    texts = [write(compiler, GrammarSpec.json_object("response_format"), seed) for seed in range(9)]
    assert all(isinstance(json.loads(text), dict) for text in texts if text is not None)
    assert any(text is not None for text in texts)


def test_a_choice_is_one_of_its_texts(compiler):
    choices = ["yes", "no", 'say "maybe"\n', "ja"]
    spec = GrammarSpec.choice(choices, "guided_choice")
    found = {write(compiler, spec, seed) for seed in range(40)}
    assert found <= set(choices)
    assert len(found) > 1


def test_a_regular_expression_and_a_lark_grammar(compiler):
    for spec in (
        GrammarSpec("regex", "[0-9]{3}-[a-f]+!", "guided_regex"),
        GrammarSpec("lark", 'start: N "-" /[a-f]+/ "!"\nN: /[0-9]{3}/', "guided_grammar"),
    ):
        text = write(compiler, spec, 1)
        assert text is not None
        head, _, tail = text.partition("-")
        assert head.isdigit()
        assert len(head) == 3
        assert tail.endswith("!")


def test_two_answers_do_not_share_their_place(compiler):
    spec = GrammarSpec.choice(["aaa", "bbb"], "guided_choice")
    first, second = compiler.new_state(spec), compiler.new_state(spec)
    before = second.mask().copy()
    first.accept(int(allowed_token_ids(first.mask(), VOCAB_SIZE)[0]))
    assert np.array_equal(second.mask(), before)
    assert not np.array_equal(first.mask(), before)


def test_after_a_token_that_is_not_allowed_only_the_end_is(compiler):
    state = compiler.new_state(GrammarSpec.choice(["aaa"], "guided_choice"))
    state.mask()
    state.accept(TOKENIZER.token_to_id("<|im_start|>"))
    assert allowed_token_ids(state.mask(), VOCAB_SIZE).tolist() == [EOS]


def nested(depth: int) -> dict:
    schema: dict = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


@pytest.mark.parametrize(
    "spec",
    [
        GrammarSpec.json_schema({"$ref": "#/$defs/missing"}, "response_format"),
        GrammarSpec.json_schema({"type": "unheard-of"}, "response_format"),
        GrammarSpec.json_schema(nested(400), "response_format"),
        GrammarSpec("json_schema", "{no json", "response_format"),
        GrammarSpec("regex", "(a", "guided_regex"),
        GrammarSpec("regex", "(" * 8_000 + "a" + ")" * 8_000, "guided_regex"),
        GrammarSpec("regex", "(a|b|ab)*" * 1_500, "guided_regex"),
        GrammarSpec("lark", "start: nobody", "guided_grammar"),
        GrammarSpec.choice([], "guided_choice"),
    ],
    ids=lambda spec: f"{spec.kind}-{spec.source[:12]}",
)
def test_what_is_no_grammar_is_refused_by_its_field(compiler, spec):
    with pytest.raises(InvalidRequest, match=f"^{spec.param} cannot be used as") as refused:
        compiler.compile(spec)
    assert refused.value.param == spec.param
    assert len(str(refused.value)) < 400


def test_a_grammar_that_is_too_long_is_refused_before_it_is_read(compiler):
    with pytest.raises(InvalidRequest, match="has 65537 characters, but a Lark grammar may have"):
        compiler.compile(GrammarSpec("lark", "a" * (MAX_GRAMMAR_LENGTH + 1), "guided_grammar"))
    with pytest.raises(InvalidRequest, match="at most 16384"):
        compiler.compile(GrammarSpec("regex", "(a)" * 20_000, "guided_regex"))


@pytest.mark.parametrize("schema", [{"$ref": "#"}, {"allOf": [{"$ref": "#"}]}, {"enum": []}])
def test_a_grammar_that_nothing_fits_is_refused(compiler, schema):
    with pytest.raises(InvalidRequest, match="cannot be used as a JSON schema"):
        compiler.compile(GrammarSpec.json_schema(schema, "response_format"))


def test_a_schema_nested_too_deep_to_be_written_is_refused():
    with pytest.raises(InvalidRequest, match="nested too deep"):
        GrammarSpec.json_schema(nested(800), "response_format")


def test_a_mask_may_be_asked_ahead_while_forced_tokens_are_asked(compiler):
    words = GrammarSpec("regex", "[a-z ]{200}", "guided_regex")
    state = compiler.new_state(words)
    with ThreadPoolExecutor(2) as executor:
        for _ in range(100):
            asked = [executor.submit(state.mask), executor.submit(state.forced_tokens)]
            allowed = allowed_token_ids(asked[0].result(), VOCAB_SIZE)
            assert asked[1].result() == []
            state.accept(int(allowed[0]))


def test_white_space_between_values_has_an_end(compiler):
    state = compiler.new_state(GrammarSpec.json_schema({"type": "object"}, "response_format"))
    state.accept(TOKENIZER.token_to_id("{"))
    (space,) = TOKENIZER.encode(" ", add_special_tokens=False).ids
    for _ in range(40):
        assert space in allowed_token_ids(state.mask(), VOCAB_SIZE)
        state.accept(space)
    assert space not in allowed_token_ids(state.mask(), VOCAB_SIZE)


def test_a_schema_that_refers_to_itself_is_fine(compiler):
    tree = {
        "$defs": {"node": {"type": "object", "properties": {"child": {"$ref": "#/$defs/node"}}}},
        "$ref": "#/$defs/node",
    }
    text = write(compiler, GrammarSpec.json_schema(tree, "response_format"), 5)
    assert text is None or isinstance(json.loads(text), dict)


def test_compiled_grammars_are_kept_up_to_a_bound(compiler):
    specs = [GrammarSpec.choice([f"a{i}"], "guided_choice") for i in range(80)]
    for spec in specs:
        compiler.compile(spec)
    assert len(compiler._compiled) == 64
    assert specs[-1] in compiler._compiled
    assert specs[0] not in compiler._compiled
