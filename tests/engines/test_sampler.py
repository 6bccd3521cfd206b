"""The sampler against the definition of each field, computed the slow way in float64."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.llm.candidates import likeliest, superset
from engines.llm.constraint import FewAllowed, unpack
from engines.llm.sampler import Sampler, token_logprobs
from engines.llm.sampling_params import SamplingParams
from engines.llm.sequence import Sequence
from tests.engines.fakes import ArrayLogits

VOCAB = 2000


def draw(logits, count=1, *, prompt=(1,), generated=(), **sampling):
    seq = Sequence.from_prompt(0, list(prompt), SamplingParams(seed=1, **sampling))
    seq.token_ids.extend(generated)
    sampler = Sampler(VOCAB)
    output = ArrayLogits(np.asarray(logits, np.float32)[None])
    return [sampler.sample(output, np.array([0]), [seq])[0].token_id for _ in range(count)]


def random_logits(seed, size=VOCAB):
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32) * 3


def allowed(logits, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0):
    """Tokens that may be drawn, by sorting everything in float64."""
    scaled = logits.astype(np.float64) / temperature
    order = np.argsort(-scaled, kind="stable")
    order = order[:top_k] if top_k else order
    probs = np.exp(scaled[order] - scaled.max())
    probs /= probs.sum()
    order = order[np.cumsum(probs) - probs < top_p]
    probs = np.exp(scaled[order] - scaled.max())
    return set(order[probs >= min_p].tolist())


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 1000),
    st.sampled_from([0.3, 1.0, 2.5]),
    st.sampled_from([0, 1, 7, 300]),
    st.sampled_from([0.1, 0.8, 0.999, 1.0]),
    st.sampled_from([0.0, 0.05]),
)
def test_only_allowed_tokens_are_drawn(seed, temperature, top_k, top_p, min_p):
    logits = random_logits(seed)
    cuts = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    assert set(draw(logits, 50, **cuts)) <= allowed(logits, **cuts)


@pytest.mark.parametrize("cuts", [{}, {"top_k": 3}, {"top_p": 0.8}, {"min_p": 0.25}])
def test_frequencies_follow_the_probabilities(cuts):
    logits = np.log(np.array([0.5, 0.25, 0.15, 0.1])).astype(np.float32)
    kept = allowed(logits, **cuts)
    expected = np.where([i in kept for i in range(4)], np.exp(logits), 0)
    counts = np.bincount(draw(logits, 4000, **cuts), minlength=4) / 4000
    assert np.abs(counts - expected / expected.sum()).max() < 0.03


def test_temperature_zero_takes_the_likeliest_token():
    logits = random_logits(0)
    assert draw(logits, temperature=0) == [int(logits.argmax())]


def test_a_seed_fixes_the_tokens_and_another_changes_them():
    logits = random_logits(0)
    first = Sequence.from_prompt(0, [1], SamplingParams(seed=7))
    output = ArrayLogits(logits[None])

    def tokens(seed):
        seq, sampler = Sequence.from_prompt(0, [1], SamplingParams(seed=seed)), Sampler(VOCAB)
        return [sampler.sample(output, np.array([0]), [seq])[0].token_id for _ in range(8)]

    assert first.sampling.seed == 7
    assert tokens(7) == tokens(7)
    assert tokens(7) != tokens(8)


def test_penalties_and_bias_follow_their_definitions():
    logits = np.zeros(8, np.float32)
    logits[[2, 3]] = 4.0, 3.5
    assert draw(logits, temperature=0, generated=[2], presence_penalty=1.0) == [3]
    assert draw(logits, temperature=0, generated=[2], frequency_penalty=0.4) == [2]
    assert draw(logits, temperature=0, generated=[2, 2], frequency_penalty=0.4) == [3]
    assert draw(logits, temperature=0, prompt=[2], presence_penalty=1.0) == [2]
    assert draw(logits, temperature=0, prompt=[2], repetition_penalty=1.3) == [3]
    assert draw(logits, temperature=0, logit_bias={5: 100.0}) == [5]
    assert draw(logits, temperature=0, logit_bias={2: -100.0}) == [3]


def test_the_runner_s_logits_are_never_written_to():
    logits = random_logits(3)
    before = logits.copy()
    logits.flags.writeable = False
    draw(logits, temperature=0.7, prompt=[1, 2], repetition_penalty=1.2, logit_bias={4: 3.0})
    assert (logits == before).all()


def test_logprobs_are_the_log_softmax_of_the_raw_logits():
    logits = random_logits(5)
    exact = logits.astype(np.float64) - np.log(np.exp(logits.astype(np.float64)).sum())
    entry = token_logprobs(logits, 11, 4)
    assert entry.logprob == pytest.approx(exact[11], abs=1e-5)
    assert [i for i, _ in entry.top] == np.argsort(-exact, kind="stable")[:4].tolist()
    assert [p for _, p in entry.top] == pytest.approx(np.sort(exact)[::-1][:4].tolist(), abs=1e-5)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 400), st.sampled_from([1, 5, 600, 5000, 151_936]))
def test_candidates_hold_the_k_largest_and_ties_go_by_id(seed, k, size):
    logits = np.random.default_rng(seed).integers(0, 50, size).astype(np.float32)
    expected = np.argsort(-logits, kind="stable")[:k]
    assert likeliest(logits, k).tolist() == expected.tolist()
    assert set(expected.tolist()) <= set(superset(logits, k).tolist())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("min_p", 2.0),
        ("presence_penalty", 2.5),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", 1e-300),  # 0 in float32, which nothing can be divided by
        ("max_tokens", -1),
        ("num_logprobs", 21),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"{field} is {value}"):
        SamplingParams(**{field: value})


class Among:
    """Allows some tokens, others after each."""

    def __init__(self, *allowed: set[int] | None) -> None:
        self.allowed = list(allowed)
        self.accepted: list[int] = []
        self.threads: list[str] = []

    def mask(self):
        self.threads.append(threading.current_thread().name)
        tokens = self.allowed[min(len(self.accepted), len(self.allowed) - 1)]
        if tokens is None:
            return None
        bits = np.zeros(-(-VOCAB // 32) * 32, np.uint8)
        bits[list(tokens)] = 1
        return np.packbits(bits, bitorder="little").view(np.uint32)

    def accept(self, token_id):
        self.accepted.append(token_id)

    def forced_tokens(self):
        return []


def constrained(logits, constraint, count, **sampling):
    params = SamplingParams(seed=1, **sampling)
    seq, sampler = Sequence.from_prompt(0, [1], params, constraint), Sampler(VOCAB)
    output = ArrayLogits(np.asarray(logits, np.float32)[None])
    return [sampler.sample(output, np.array([0]), [seq])[0].token_id for _ in range(count)]


@settings(max_examples=60, deadline=None)
@given(
    st.sets(st.integers(0, VOCAB - 1), min_size=1, max_size=40),
    st.booleans(),
    st.sampled_from([0.0, 1.0]),
    st.sampled_from([0, 7]),
    st.sampled_from([0.5, 1.0]),
    st.sampled_from([0.0, 1.0]),
)
def test_only_what_a_constraint_allows_is_drawn(
    tokens, forbids, temperature, top_k, top_p, penalty
):
    tokens = set(range(VOCAB)) - tokens if forbids else tokens
    constraint = Among(*[tokens] * 20)
    drawn = constrained(
        random_logits(0), constraint, 20,
        temperature=temperature, top_k=top_k, top_p=top_p, presence_penalty=penalty,
    )  # fmt: skip
    assert set(drawn) <= tokens
    assert constraint.accepted == drawn


def test_a_greedy_answer_takes_the_likeliest_of_the_allowed():
    logits = random_logits(3)
    allowed = {5, 900, 1999}
    best = max(allowed, key=lambda token: logits[token])
    drawn = constrained(logits, Among(allowed, None), 2, temperature=0)
    assert drawn == [best, int(logits.argmax())]


def test_a_greedy_answer_passes_over_a_few_forbidden_tokens():
    logits = random_logits(3)
    first, second = likeliest(logits, 2).tolist()
    drawn = constrained(logits, Among(set(range(VOCAB)) - {first}, None), 2, temperature=0)
    assert drawn == [second, first]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([1, 30, 120, 130, 1000, VOCAB - 130, VOCAB - 120, VOCAB - 1, VOCAB]),
    st.integers(0, 5),
    st.sampled_from([VOCAB, VOCAB - 64]),
)
def test_a_mask_says_the_same_in_each_of_its_forms(num_allowed, seed, num_bits):
    rng = np.random.default_rng(seed)
    expected = rng.permutation(VOCAB) < num_allowed
    bits = np.zeros(-(-VOCAB // 32) * 32, np.uint8)
    bits[:VOCAB] = expected
    mask = np.packbits(bits, bitorder="little").view(np.uint32)[: num_bits // 32 + 1]
    expected[mask.size * 32 :] = False  # columns that the tokenizer knows nothing of
    found = unpack(mask, VOCAB)
    if isinstance(found, FewAllowed):
        assert found.token_ids.tolist() == np.flatnonzero(expected).tolist()
    else:
        assert found.flags.tolist() == expected.tolist()
        logits = random_logits(seed)
        assert np.array_equal(found.masked(logits), np.where(expected, logits, -np.inf))
    assert isinstance(found, FewAllowed) == (expected.sum() * 16 < VOCAB)


def test_what_follows_a_token_is_worked_out_at_once_by_another_thread():
    constraint = Among({5, 6}, {7}, None)
    constrained(random_logits(3), constraint, 2)
    here = threading.current_thread().name
    assert constraint.threads[0] == here, "nothing precedes the first token"
    assert all(name.startswith("masks") for name in constraint.threads[1:])


def test_a_constraint_that_allows_all_changes_no_draw():
    logits = random_logits(4)
    for cuts in ({}, {"top_k": 9}, {"top_p": 0.9}, {"top_k": 9, "top_p": 0.9, "min_p": 0.1}):
        free = constrained(logits, Among(*[None] * 30), 30, **cuts)
        assert constrained(logits, Among(*[set(range(VOCAB))] * 30), 30, **cuts) == free
        assert draw(logits, 30, **cuts) == free


def test_allowed_tokens_are_drawn_as_likely_as_they_are_among_themselves():
    logits = np.log(np.array([0.5, 0.25, 0.15, 0.1] + [1e-9] * (VOCAB - 4))).astype(np.float32)
    drawn = constrained(logits, Among(*[{1, 3}] * 4000), 4000)
    assert np.mean(np.array(drawn) == 1) == pytest.approx(0.25 / 0.35, abs=0.03)
