import pytest

from benchmarks.errors import BenchmarkFailed
from benchmarks.prompts import TextSource, TokenScale, read_dataset
from benchmarks.text import SENTENCES


def test_a_text_has_exactly_the_words_asked_for():
    source = TextSource(SENTENCES, seed=1)
    assert [len(source.text(count).split()) for count in (1, 7, 500)] == [1, 7, 500]


def test_the_same_seed_gives_the_same_prompts_and_another_one_others():
    first, second = (TextSource(SENTENCES, seed=5).text(80) for _ in range(2))
    assert first == second
    assert first != TextSource(SENTENCES, seed=6).text(80)


def test_prompts_of_one_run_do_not_share_a_long_prefix():
    source = TextSource(SENTENCES, seed=2)
    beginnings = {" ".join(source.text(60).split()[:40]) for _ in range(50)}
    assert len(beginnings) == 50


def test_short_prompts_differ_until_every_sentence_has_begun_one():
    for seed in range(20):
        source = TextSource(SENTENCES, seed)
        assert len({source.text(8) for _ in SENTENCES}) == len(SENTENCES)


def test_the_scale_is_the_line_through_two_counts():
    scale = TokenScale.from_counts((40, 87), (160, 327))
    assert scale.per_word == pytest.approx(2.0)
    assert scale.overhead == pytest.approx(7.0)
    assert scale.num_words(257) == 125
    assert scale.num_words(1) == 1  # less than the template alone


def test_counts_that_do_not_grow_leave_the_default_scale():
    assert TokenScale.from_counts((40, 50), (160, 50)) == TokenScale()


def test_a_text_file_is_cut_into_sentences(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("One two.\nThree four five! Six", encoding="utf-8")
    words = set(TextSource.from_file(path, seed=0).text(60).split())
    assert words == {"One", "two.", "Three", "four", "five!", "Six"}


@pytest.mark.parametrize(
    ("content", "message"), [(b" \n", "holds no text"), (b"\xff\xfe", "UTF-8")]
)
def test_a_text_file_without_text_is_refused(tmp_path, content, message):
    path = tmp_path / "words.txt"
    path.write_bytes(content)
    with pytest.raises(BenchmarkFailed, match=message):
        TextSource.from_file(path, seed=0)


def test_a_dataset_holds_texts_and_conversations(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text(
        '{"prompt": "Hi", "max_tokens": 3}\n\n'
        '{"messages": [{"role": "system", "content": "Be brief."}]}\n'
    )
    text, conversation = read_dataset(path, needs_text=False)
    assert text.as_messages() == [{"role": "user", "content": "Hi"}]
    assert text.max_tokens == 3
    assert conversation.as_messages() == [{"role": "system", "content": "Be brief."}]


@pytest.mark.parametrize(
    ("line", "needs_text", "message"),
    [
        ("{", False, "line 2 is no prompt"),
        ('{"prompt": 3}', False, "line 2 is no prompt: Expected `str"),
        ('{"text": "Hi"}', False, "line 2 has no `prompt` or `messages`"),
        ('{"messages": [{"role": "user", "content": "Hi"}]}', True, "line 2 has no `prompt`"),
    ],
)
def test_a_line_that_is_no_prompt_is_named(tmp_path, line, needs_text, message):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "fine"}\n' + line + "\n")
    with pytest.raises(BenchmarkFailed, match=message):
        read_dataset(path, needs_text=needs_text)


def test_a_dataset_without_lines_is_refused(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n")
    with pytest.raises(BenchmarkFailed, match="holds no prompts"):
        read_dataset(path, needs_text=False)
