"""Step caching on a fake model: which runs are whole, who shares them, and what is kept."""

from __future__ import annotations

import gc
import weakref

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


def phases(runner):
    """F for each whole run and S for each shallow one."""
    return "".join("S" if is_shallow else "F" for is_shallow in runner.is_shallow)


@pytest.mark.parametrize(
    ("cache_interval", "expected"),
    [(1, "FFFFFFF"), (2, "FSFSFSF"), (3, "FSSFSSF"), (5, "FSSSSFS"), (150, "FSSSSSS")],
)
def test_the_whole_model_runs_first_and_then_at_every_so_many_steps(cache_interval, expected):
    runner = FakeImageRunner()
    engine = make_engine(runner)
    engine.add(make_request(1, num_inference_steps=7, cache_interval=cache_interval))
    run_to_end(engine)
    assert phases(runner) == expected
    stats = engine.stats()
    assert (stats.num_steps, stats.num_shallow_steps) == (7, expected.count("S"))


def test_a_picture_from_an_image_begins_with_a_whole_run():
    runner = FakeImageRunner()
    engine = make_engine(runner)
    image = np.zeros((8, 8, 3), np.uint8)
    engine.add(make_request(1, image=image, strength=0.5, num_inference_steps=8, cache_interval=3))
    run_to_end(engine)
    assert phases(runner) == "FSSF"


def test_shallow_runs_change_the_picture_and_repeat():
    cached, again, whole = (
        picture_alone(make_request(1, num_inference_steps=6, cache_interval=interval))
        for interval in (3, 3, 1)
    )
    assert np.array_equal(cached, again)
    assert not np.array_equal(cached, whole)


def test_whole_and_shallow_steps_are_never_in_one_run_and_take_turns():
    runner = FakeImageRunner()
    engine = make_engine(runner)
    engine.add(make_request(1, num_inference_steps=6, cache_interval=3))
    engine.add(make_request(2, num_inference_steps=6))
    taken = [sorted(output.image_id for output in engine.step()) for _ in range(5)]
    assert phases(runner) == "FSFSF"
    assert taken == [[1, 2], [1], [2], [1], [1, 2]]
    run_to_end(engine)


def test_requests_of_one_rhythm_share_every_run():
    runner = FakeImageRunner()
    engine = make_engine(runner)
    for image_id in (1, 2):
        engine.add(make_request(image_id, num_inference_steps=6, cache_interval=3))
    run_to_end(engine)
    assert phases(runner) == "FSSFSS"
    assert {shape[0] for shape in runner.batches} == {4}


def test_nobody_starves_beside_many_of_another_rhythm():
    engine = make_engine(max_num_images=4, max_rows=2)
    engine.add(make_request(1, num_inference_steps=5))
    for image_id in (2, 3, 4):
        engine.add(make_request(image_id, num_inference_steps=100, cache_interval=10))
    steps_until_done = 0
    while 1 not in pictures(engine.step()):
        steps_until_done += 1
        assert steps_until_done < 20


def test_a_request_is_the_same_beside_others_of_other_rhythms():
    requests = [
        make_request(1, num_inference_steps=7, cache_interval=3),
        make_request(2, num_inference_steps=5, cache_interval=2),
        make_request(3, num_inference_steps=6),
        make_request(4, num_inference_steps=9, cache_interval=3, guidance_scale=1.0),
    ]
    engine, found = make_engine(max_rows=5), {}
    for request in requests:
        engine.add(request)
        found |= pictures(engine.step())
    found |= pictures(run_to_end(engine))
    for request in requests:
        assert np.array_equal(found[request.image_id], picture_alone(request))


def features_kept(denoising):
    try:
        return denoising.deep_features is not None
    except AssertionError:
        return False


def test_features_are_kept_by_those_who_need_them_and_let_go_at_the_last_step():
    engine = make_engine()
    engine.add(make_request(1, num_inference_steps=4, cache_interval=3))
    engine.add(make_request(2))
    engine.add(make_request(3, num_inference_steps=1, cache_interval=3))
    engine.step()
    kept = {d.image_id: features_kept(d) for d in engine.scheduler.running}
    assert kept == {1: True, 2: False}
    cached = engine.scheduler.running[-2]
    assert cached.image_id == 1
    assert cached.deep_features.base is None, "the rows of the others are kept alive"
    assert len(cached.deep_features) == 2
    run_to_end(engine)
    assert not features_kept(cached)


def test_an_aborted_request_leaves_nothing_behind():
    engine = make_engine()
    engine.add(make_request(1, num_inference_steps=9, cache_interval=3))
    engine.step()
    features = weakref.ref(engine.scheduler.running[0].deep_features)
    assert features() is not None
    engine.abort(1)
    gc.collect()
    assert features() is None
