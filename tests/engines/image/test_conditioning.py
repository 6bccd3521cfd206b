"""What the denoiser is told, beside diffusers."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from engines.errors import InvalidRequest
from engines.image.conditioning import concatenate, empty_text, encode_request, guide
from engines.image.request import check_request
from engines.image.runner import EncodedText
from tests.engines.image.fake_runner import FakeImageRunner, make_request, make_spec


@pytest.mark.parametrize("width", [8, 9, 256])
def test_the_guidance_embedding_is_that_of_diffusers(width):
    scale = 7.5
    told = encode_request(
        make_request(1, guidance_scale=scale),
        make_spec(guidance="distilled", guidance_width=width),
        FakeImageRunner(),
    )
    embed = StableDiffusionPipeline.get_guidance_scale_embedding
    expected = embed(None, torch.tensor([scale - 1]), embedding_dim=width, dtype=torch.float64)
    assert told.guidance_waves.shape == (1, width)
    # Theirs rounds the step between frequencies to float32: 2e-5 on angles up to 6,500.
    assert np.abs(told.guidance_waves - expected.numpy()).max() < 1e-4


def test_the_sizes_are_those_of_a_picture_that_was_not_cropped():
    told = encode_request(
        make_request(1, height=6, width=8), make_spec(takes_sizes=True), FakeImageRunner()
    )
    assert told.time_ids.tolist() == [[6, 8, 0, 0, 6, 8]] * 2


class ScriptedEncoders:
    """Text encoders whose rows say which one they are of: encoder, text, token."""

    def __init__(self, widths, pooled_widths=None) -> None:
        self.widths = widths
        self.pooled_widths = pooled_widths or [2] * len(widths)
        self.num_runs = 0

    def encode_text(self, token_ids):
        self.num_runs += 1
        encoded = []
        for index, ids in enumerate(token_ids):
            rows = np.repeat(ids[:, :, None], self.widths[index], 2).astype(np.float32)
            pooled = np.repeat(ids[:, :1], self.pooled_widths[index], 1).astype(np.float32)
            encoded.append(EncodedText(rows + 100 * index, pooled + 100 * index))
        return tuple(encoded)


def encoders(*changes):
    """One encoder for each set of changes."""
    (plain,) = make_spec().text_encoders
    return tuple(msgspec.structs.replace(plain, **change) for change in changes)


def told(spec, runner, *lengths, **changes):
    ids = tuple(tuple(range(1, length + 1)) for length in lengths)
    return encode_request(
        make_request(1, prompt_token_ids=ids, guidance_scale=1.0, **changes), spec, runner
    )


def test_rows_stand_beside_and_behind_each_other_with_zeros_where_they_are_narrow():
    spec = make_spec(
        text_encoders=encoders(
            {"gives_pooled": True}, {"gives_pooled": True}, {"context": "behind"}
        )
    )
    found = told(spec, ScriptedEncoders([2, 1, 5]), 3, 3, 4)
    assert found.context.shape == (1, 7, 5)
    assert found.context[0, 0].tolist() == [1, 1, 101, 0, 0]
    assert found.context[0, 2].tolist() == [3, 3, 103, 0, 0]
    assert found.context[0, 3].tolist() == [201] * 5
    assert found.pooled.tolist() == [[1, 1, 101, 101]]


def test_rows_of_zeros_stand_for_an_encoder_that_was_left_out():
    spec = make_spec(context_width=4, num_empty_rows=2)
    found = told(spec, ScriptedEncoders([3]), 2)
    assert found.context.tolist() == [[[1, 1, 1, 0], [2, 2, 2, 0], [0] * 4, [0] * 4]]
    assert found.pooled is None
    assert found.context_lengths is None


def test_an_encoder_may_give_the_whole_text_alone():
    spec = make_spec(text_encoders=encoders({"context": "none", "gives_pooled": True}, {}))
    found = told(spec, ScriptedEncoders([2, 3]), 2, 4)
    assert found.context.shape == (1, 4, 3)
    assert found.context[0, 0].tolist() == [101] * 3
    assert found.pooled.tolist() == [[1, 1]]


def test_a_model_that_reads_the_guidance_as_a_number_is_told_it_for_each_row():
    spec = make_spec(guidance="distilled")
    requests = [make_request(1, guidance_scale=scale) for scale in (3.5, 1.0)]
    rows = [encode_request(request, spec, FakeImageRunner()) for request in requests]
    assert concatenate(rows).guidance_scale.tolist() == [3.5, 1.0]
    assert concatenate(rows).guidance_waves is None


def test_ragged_texts_are_encoded_alone_and_told_with_their_lengths():
    spec = make_spec(text_encoders=encoders({"pad_token_id": None}))
    runner = ScriptedEncoders([2])
    request = make_request(1, prompt_token_ids=((1, 2, 3),), negative_token_ids=((9,),))
    found = encode_request(request, spec, runner)
    assert runner.num_runs == 2
    assert found.context_lengths.tolist() == [1, 3]
    assert found.context[0].tolist() == [[9, 9], [0, 0], [0, 0]]
    shorter = told(spec, runner, 2)
    both = concatenate([found, shorter])
    assert both.context.shape == (3, 3, 2)
    assert both.context_lengths.tolist() == [1, 3, 2]


@pytest.mark.parametrize(
    ("spec", "changes", "param", "message"),
    [
        ({"guidance": "none"}, {}, "guidance_scale", "guidance_scale is 5.0, but the model was"),
        (
            {"guidance": "distilled"},
            {"negative_token_ids": ((1, 2, 3, 4, 5),)},
            "negative_token_ids",
            "the model takes no negative prompt",
        ),
        ({"max_side": 8}, {"width": 10}, "size", "size is 10x8, but a side may have at most 8"),
    ],
)
def test_what_a_model_cannot_take_is_refused_by_name(spec, changes, param, message):
    with pytest.raises(InvalidRequest, match=message) as caught:
        check_request(make_request(1, **changes), make_spec(**spec))
    assert caught.value.param == param


def test_a_ragged_text_may_be_shorter_but_not_longer_than_the_encoder_reads():
    spec = make_spec(text_encoders=encoders({"pad_token_id": None}))
    check_request(make_request(1, prompt_token_ids=((1, 2),)), spec)
    with pytest.raises(InvalidRequest, match="has 6 ids, but a text has at most 5"):
        check_request(make_request(1, prompt_token_ids=((1,) * 6,)), spec)


def test_guidance_moves_away_from_the_negative_prompt():
    negative, prompt = np.ones((4, 2, 6), np.float32), np.full((4, 2, 6), 3.0, np.float32)
    guided = guide(np.stack([negative, prompt]), 4.0, make_spec())
    assert np.array_equal(guided, np.full((4, 2, 6), 9.0, np.float32))
    assert guide(prompt[None], 4.0, make_spec()) is not None
    assert np.array_equal(guide(prompt[None], 4.0, make_spec()), prompt)


def test_a_rescaled_prediction_has_the_length_of_the_prompt_s_in_every_patch():
    spec = make_spec(rescales_guidance=True, size_multiple=4)
    assert spec.patch_size == 2
    output = np.random.default_rng(0).standard_normal((2, 4, 2, 6), np.float32)
    found, plain = guide(output, 4.0, spec), guide(output, 4.0, make_spec())
    assert found.dtype == np.float32
    for column in (0, 2, 4):
        patch, wanted, raw = (one[:, :, column : column + 2] for one in (found, output[1], plain))
        assert np.linalg.norm(patch) == pytest.approx(np.linalg.norm(wanted), rel=1e-5)
        assert np.allclose(patch / np.linalg.norm(patch), raw / np.linalg.norm(raw), atol=1e-6)
        assert np.linalg.norm(raw) > 1.2 * np.linalg.norm(wanted)


def test_a_patch_of_zeros_stays_one():
    spec = make_spec(rescales_guidance=True, size_multiple=4)
    output = np.zeros((2, 4, 2, 2), np.float32)
    assert np.array_equal(guide(output, 4.0, spec), output[0])


def test_an_empty_text_has_the_ids_that_stand_for_none():
    (encoder,) = make_spec().text_encoders
    (plain,) = empty_text(make_spec())
    assert plain == (*encoder.prefix_token_ids, *encoder.suffix_token_ids, 0, 0, 0)
    named = msgspec.structs.replace(encoder, empty_token_ids=(7,))
    (found,) = empty_text(make_spec(text_encoders=(named,)))
    assert found == (*encoder.prefix_token_ids, 7, *encoder.suffix_token_ids, 0, 0)
