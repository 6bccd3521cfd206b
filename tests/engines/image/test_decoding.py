"""When latents become pictures: one a step, pictures first, and no preview that is old news."""

from __future__ import annotations

import numpy as np
import pytest

from tests.engines.image.fake_runner import (
    FakeImageRunner,
    make_engine,
    make_request,
    picture_alone,
    pictures,
    run_to_end,
)

EVERY = frozenset(range(1, 50))


def previews(outputs):
    """(image id, step) in the order in which they came."""
    return [(output.image_id, output.step) for output in outputs if output.preview is not None]


def test_pictures_that_end_together_are_decoded_one_a_step_while_others_go_on():
    runner = FakeImageRunner()
    engine = make_engine(runner)
    for image_id in (1, 2):
        engine.add(make_request(image_id))
    engine.add(make_request(3, num_inference_steps=8))
    for _ in range(4):
        outputs = engine.step()
    assert list(pictures(outputs)) == [1]
    assert engine.stats().num_decoding == 1
    outputs = engine.step()
    assert list(pictures(outputs)) == [2]
    assert {output.image_id for output in outputs if not output.is_finished} == {3}


def test_a_preview_shows_the_picture_that_the_model_sees_and_changes_nothing():
    engine = make_engine()
    engine.add(make_request(1, preview_steps=frozenset({2, 4})))
    outputs = run_to_end(engine)
    previews = {output.step: output.preview for output in outputs if output.preview is not None}
    assert list(previews) == [2]
    final = pictures(outputs)[1]
    assert previews[2].shape == final.shape
    assert not np.array_equal(previews[2], final)
    assert np.array_equal(final, picture_alone(make_request(1)))


def test_a_request_by_itself_shows_every_preview_after_its_step():
    engine = make_engine()
    engine.add(make_request(1, num_inference_steps=6, preview_steps=EVERY))
    outputs = run_to_end(engine)
    assert previews(outputs) == [(1, step) for step in range(1, 6)]
    assert engine.stats().num_steps == 6


def test_previews_at_every_step_do_not_hold_up_the_steps_of_anybody():
    engine = make_engine(max_num_images=3)
    for image_id in (1, 2, 3):
        engine.add(make_request(image_id, num_inference_steps=20, preview_steps=EVERY))
    outputs = []
    for step in range(1, 21):
        news = engine.step()
        assert {output.image_id for output in news if output.preview is None} == {1, 2, 3}
        assert {output.step for output in news if output.picture is output.preview} == {step}
        assert engine.stats().num_decoding <= 3
        outputs += news
    outputs += run_to_end(engine)
    shown = previews(outputs)
    assert len(shown) == 19, "the decoder was not busy at every step"
    by_request = [sum(image_id == one for image_id, _ in shown) for one in (1, 2, 3)]
    assert max(by_request) - min(by_request) <= 1
    assert set(pictures(outputs)) == {1, 2, 3}


def test_a_preview_that_was_overtaken_is_not_decoded_and_never_follows_its_picture():
    runner = FakeImageRunner()
    engine = make_engine(runner)
    for image_id in (1, 2, 3, 4):
        engine.add(make_request(image_id, preview_steps=EVERY))
    outputs = run_to_end(engine)
    assert runner.num_decoded == len(previews(outputs)) + 4
    assert previews(outputs) == [(1, 1), (2, 2), (3, 3)]
    last = {output.image_id: output for output in outputs}
    assert all(output.is_finished for output in last.values())


def test_a_picture_is_decoded_before_a_preview_that_waited_for_longer():
    engine = make_engine()
    for image_id in (1, 2):
        engine.add(make_request(image_id, num_inference_steps=9, preview_steps=frozenset({3})))
    engine.add(make_request(3))
    for _ in range(3):
        outputs = engine.step()
    assert previews(outputs) == [(1, 3)]
    assert engine.stats().num_decoding == 1
    outputs = engine.step()
    assert previews(outputs) == []
    assert list(pictures(outputs)) == [3]
    assert previews(engine.step()) == [(2, 3)]


@pytest.mark.parametrize("num_inference_steps", [1, 2])
def test_requests_of_few_steps_wait_for_the_decoder(num_inference_steps):
    engine, most = make_engine(max_num_images=2), 0
    for image_id in range(12):
        engine.add(make_request(image_id, num_inference_steps=num_inference_steps))
    found = []
    while engine.has_work:
        found += pictures(engine.step())
        most = max(most, engine.stats().num_decoding)
    assert most <= 4
    assert found == list(range(12))
