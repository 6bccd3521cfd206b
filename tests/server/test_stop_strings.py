"""Stop strings: never a part of one gets out, and where the text is cut changes nothing."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.text.stop_strings import StopMatcher, StopStrings

# A small alphabet makes matches, overlaps and false starts likely.
texts = st.text(alphabet="ab<", max_size=40)
stop_lists = st.lists(st.text(alphabet="ab<", min_size=1, max_size=6), min_size=1, max_size=4)


def run(stops: list[str], parts: list[str]) -> tuple[list[str], bool]:
    matcher = StopMatcher(StopStrings(stops))
    emitted = [matcher.push(part) for part in parts]
    return [*emitted, matcher.flush()], matcher.is_stopped


def expected(stops: list[str], text: str) -> tuple[str, bool]:
    """The text before the stop string that is complete first; of several, the longest."""
    for end in range(len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - max(map(len, found))], True
    return text, False


def cut(text: str, points: list[int]) -> list[str]:
    edges = [0, *sorted(point % (len(text) + 1) for point in points), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(edges)]


@given(stop_lists, texts, st.lists(st.integers(0, 40), max_size=8))
def test_any_cut_gives_the_text_before_the_first_stop(stops, text, points):
    emitted, is_stopped = run(stops, cut(text, points))
    assert ("".join(emitted), is_stopped) == expected(stops, text)


@given(stop_lists, texts)
def test_no_prefix_of_the_output_ever_runs_into_a_stop_string(stops, text):
    matcher = StopMatcher(StopStrings(stops))
    emitted = ""
    for index, char in enumerate(text):
        emitted += matcher.push(char)
        assert expected(stops, text)[0].startswith(emitted)
        if not matcher.is_stopped:
            held = text[len(emitted) : index + 1]
            assert not held or any(stop.startswith(held) for stop in stops)


@given(stop_lists, texts)
def test_what_is_held_back_is_the_longest_tail_that_could_begin_a_stop_string(stops, text):
    matcher = StopMatcher(StopStrings(stops))
    emitted = matcher.push(text)
    if matcher.is_stopped:
        return
    tails = [text[start:] for start in range(len(text) + 1)]
    longest = next(tail for tail in tails if any(stop.startswith(tail) for stop in stops))
    assert emitted + longest == text


def test_a_false_start_is_let_out():
    assert run(["<end>"], ["a <e", "x <end", ">tail"]) == (["a ", "<ex ", "", ""], True)


def test_what_is_held_back_comes_at_the_end_of_the_text():
    assert run(["<end>"], ["a <en"]) == (["a ", "<en"], False)


def test_of_two_stop_strings_that_end_together_the_longer_counts():
    assert run(["b", "ab"], ["xab"]) == (["x", ""], True)


def test_special_characters_of_patterns_are_plain_characters():
    assert run(["^]", "\\d-"], ["a^", "b\\d", "-"]) == (["a", "^b", "", ""], True)


def test_nothing_comes_after_a_stop_string():
    matcher = StopMatcher(StopStrings(["."]))
    assert matcher.push("one. two.") == "one"
    assert matcher.push(" three") == ""
    assert matcher.flush() == ""


def test_an_empty_stop_string_is_refused():
    with pytest.raises(ValueError, match="a stop string is empty"):
        StopStrings(["a", ""])
