"""The image engine on a fake model: who runs when, and what comes out."""

from __future__ import annotations

import numpy as np
import pytest

from tests.engines.image.fake_runner import (
    BOS,
    EOS,
    PAD,
    FakeImageRunner,
    make_engine,
    make_request,
    make_spec,
    picture_alone,
    pictures,
    run_to_end,
)


def test_a_request_tells_each_step_and_ends_with_its_picture():
    engine = make_engine()
    engine.add(make_request(7))
    outputs = run_to_end(engine)
    assert [(output.step, output.num_steps) for output in outputs[:-1]] == [
        (step, 4) for step in (1, 2, 3, 4)
    ]
    assert not any(output.is_finished for output in outputs[:-1])
    picture = outputs[-1].picture
    assert picture.shape == (8, 8, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 10
    assert engine.stats().num_images == 1


def test_a_step_without_work_returns_nothing():
    assert make_engine().step() == []


def test_equal_shapes_share_a_run_and_join_between_steps():
    runner = FakeImageRunner()
    engine = make_engine(runner)
    engine.add(make_request(1))
    engine.step()
    engine.add(make_request(2, num_inference_steps=2))
    run_to_end(engine)
    assert [shape[0] for shape in runner.batches] == [2, 4, 4, 2]


def test_a_request_without_guidance_takes_one_row():
    runner = FakeImageRunner()
    engine = make_engine(runner)
    engine.add(make_request(1, guidance_scale=1.0))
    engine.add(make_request(2))
    engine.step()
    assert runner.batches[0][0] == 3


def test_different_shapes_take_turns():
    runner = FakeImageRunner()
    engine = make_engine(runner)
    engine.add(make_request(1))
    engine.add(make_request(2, height=4))
    engine.add(make_request(3))
    for _ in range(4):
        engine.step()
    assert runner.batches == [(4, 4, 4, 4), (2, 4, 2, 4), (4, 4, 4, 4), (2, 4, 2, 4)]


def test_a_run_has_at_most_max_rows_and_the_others_come_next():
    runner = FakeImageRunner()
    engine = make_engine(runner, max_rows=4)
    for image_id in range(3):
        engine.add(make_request(image_id))
    taken = [{output.image_id for output in engine.step()} for _ in range(3)]
    assert all(shape[0] <= 4 for shape in runner.batches)
    assert taken == [{0, 1}, {2, 0}, {1, 2}]


def test_large_pictures_run_apart_and_small_ones_together():
    runner = FakeImageRunner()
    engine = make_engine(runner, max_num_images=6, max_batch_pixels=4 * 4 * 8)
    for image_id in range(3):
        engine.add(make_request(image_id))
        engine.add(make_request(image_id + 3, height=4))
    taken = [{output.image_id for output in engine.step()} for _ in range(6)]
    assert taken == [{0}, {3, 4}, {1}, {2}, {5, 3}, {0}]


def test_more_requests_than_max_num_images_wait_in_order():
    engine = make_engine(max_num_images=2)
    for image_id in range(4):
        engine.add(make_request(image_id))
    assert {output.image_id for output in engine.step()} == {0, 1}
    assert (engine.stats().num_running, engine.stats().num_waiting) == (2, 2)
    ended = list(pictures(run_to_end(engine)))
    assert ended == [0, 1, 2, 3]


def test_an_aborted_request_frees_its_place_at_the_next_step():
    engine = make_engine(max_num_images=1)
    engine.add(make_request(1, num_inference_steps=100))
    engine.add(make_request(2))
    engine.step()
    engine.abort(1)
    assert {output.image_id for output in engine.step()} == {2}
    assert list(pictures(run_to_end(engine))) == [2]


def test_a_request_can_be_aborted_while_it_waits_and_before_it_is_decoded():
    runner = FakeImageRunner()
    engine = make_engine(runner, max_num_images=2)
    for image_id in (1, 2, 3):
        engine.add(make_request(image_id))
    engine.abort(3)
    for _ in range(4):
        engine.step()
    assert engine.stats().num_decoding == 1
    engine.abort(2)
    assert not engine.has_work
    assert runner.num_decoded == 1
    engine.abort(2)
    engine.abort(99)
    engine.add(make_request(2))
    assert list(pictures(run_to_end(engine))) == [2]


def test_an_id_in_use_is_refused():
    engine = make_engine()
    engine.add(make_request(1))
    with pytest.raises(ValueError, match="image_id 1 belongs to a request that is not finished"):
        engine.add(make_request(1))


def test_without_a_negative_prompt_the_empty_text_is_what_guidance_leads_away_from():
    runner = FakeImageRunner()
    engine = make_engine(runner)
    engine.add(make_request(1))
    engine.step()
    assert runner.texts[0].tolist() == [[BOS, EOS, PAD, PAD, PAD], [BOS, 2, EOS, PAD, PAD]]


def test_a_model_that_was_trained_on_zeros_gets_them_only_without_a_negative_prompt():
    spec = make_spec(zeros_without_negative=True)
    empty = ((BOS, EOS, PAD, PAD, PAD),)
    runner = FakeImageRunner()
    engine = make_engine(runner, spec)
    engine.add(make_request(1))
    engine.step()
    assert len(runner.texts[0]) == 1
    zeros, given = (
        picture_alone(make_request(1, negative_token_ids=ids), spec) for ids in (None, empty)
    )
    assert not np.array_equal(zeros, given)


def test_a_model_that_is_told_the_guidance_takes_one_row_and_obeys_it():
    spec, runner = make_spec(guidance="distilled", guidance_width=8), FakeImageRunner()
    engine = make_engine(runner, spec)
    engine.add(make_request(1))
    engine.step()
    assert runner.batches[0][0] == 1
    weak, strong = (
        picture_alone(make_request(1, guidance_scale=scale), spec) for scale in (1.5, 8.0)
    )
    assert not np.array_equal(weak, strong)


def test_an_image_to_start_from_is_kept_the_more_the_lower_the_strength():
    image = np.full((8, 8, 3), 200, np.uint8)

    def distance(strength):
        request = make_request(
            1, image=image, strength=strength, num_inference_steps=20, guidance_scale=1.0
        )
        return np.abs(picture_alone(request).astype(int) - 200).mean()

    assert distance(0.1) < distance(0.5) < distance(1.0)


def test_an_image_skips_the_steps_before_its_strength():
    engine = make_engine()
    image = np.zeros((8, 8, 3), np.uint8)
    engine.add(make_request(1, image=image, strength=0.5, num_inference_steps=20))
    outputs = engine.step()
    assert (outputs[0].step, outputs[0].num_steps) == (1, 10)


def test_closing_releases_the_model():
    runner = FakeImageRunner()
    make_engine(runner).close()
    assert runner.is_closed
