"""Token ids to text: the pieces join to the whole, and no piece holds half a character."""

from hypothesis import given
from hypothesis import strategies as st

from server.text.detokenizer import Detokenizer, TokenTable, token_to_bytes
from tests.checkpoints import build_tokenizer

TOKENIZER = build_tokenizer()
SPECIAL_IDS = frozenset({0, 1, 2})
TABLE = TokenTable(TOKENIZER.id_to_token, SPECIAL_IDS)
FULL_TABLE = TokenTable(TOKENIZER.id_to_token)

token_ids = st.lists(st.integers(0, TOKENIZER.get_vocab_size() - 1), max_size=40)
# Bytes are tokens of their own here, so these make characters out of several tokens.
texts = st.text(
    alphabet=st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("é你😀"))
)


def pieces(ids: list[int], table: TokenTable = TABLE) -> list[str]:
    detokenizer = Detokenizer(table)
    return [*map(detokenizer.push, ids), detokenizer.flush()]


@given(token_ids)
def test_the_pieces_of_any_ids_join_to_what_the_tokenizer_decodes(ids):
    assert "".join(pieces(ids)) == TOKENIZER.decode(ids, skip_special_tokens=True)
    assert "".join(pieces(ids, FULL_TABLE)) == TOKENIZER.decode(ids, skip_special_tokens=False)


@given(texts)
def test_valid_text_comes_back_whole_and_never_broken(text):
    ids = TOKENIZER.encode(text).ids
    assert "".join(pieces(ids, FULL_TABLE)) == text
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces(ids, FULL_TABLE))


@given(st.lists(st.binary(min_size=1, max_size=3), max_size=12))
def test_any_bytes_decode_as_if_they_had_come_at_once(parts):
    vocabulary = dict(enumerate(map(stand_ins, parts)))
    decoded = pieces(list(vocabulary), TokenTable(vocabulary.get))
    assert "".join(decoded) == b"".join(parts).decode(errors="replace")


def stand_ins(part: bytes) -> str:
    inverse = {token_to_bytes(token): token for token in TOKENIZER.get_vocab() if len(token) == 1}
    return "".join(inverse[bytes([byte])] for byte in part)


def test_a_character_of_three_tokens_comes_with_its_last_one():
    ids = TOKENIZER.encode("你").ids
    assert len(ids) == 3
    assert pieces(ids) == ["", "", "你", ""]


def test_a_character_that_is_cut_off_becomes_a_replacement_at_the_end():
    ids = TOKENIZER.encode("a你").ids[:-1]
    assert pieces(ids) == ["a", "", "", "\ufffd"]


def test_bytes_that_cannot_be_completed_become_a_replacement_at_once():
    first = TOKENIZER.encode("你").ids[0]
    assert pieces([first, *TOKENIZER.encode("a").ids]) == ["", "\ufffda", ""]


def test_special_tokens_have_no_text_unless_they_are_asked_for():
    ids = [TOKENIZER.token_to_id("<|im_end|>"), TOKENIZER.token_to_id("<think>")]
    assert pieces(ids) == ["", "<think>", ""]
    assert pieces(ids, FULL_TABLE) == ["<|im_end|>", "<think>", ""]


def test_an_id_without_an_entry_adds_nothing():
    assert pieces([TOKENIZER.get_vocab_size() + 5]) == ["", ""]


def test_an_added_token_with_a_space_stands_for_its_own_letters():
    assert token_to_bytes("a b") == b"a b"
    assert TABLE.bytes_of(TOKENIZER.token_to_id("</think>")) == b"</think>"
