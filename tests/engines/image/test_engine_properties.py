"""Whatever arrives, in whatever order: nothing is lost, nothing is shared, nobody starves."""

from __future__ import annotations

import functools

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.engines.image.fake_runner import (
    FakeImageRunner,
    make_engine,
    make_request,
    picture_alone,
)

MAX_NUM_IMAGES = 3
MAX_ROWS = 4

SIZES = st.sampled_from([(4, 4), (8, 4), (8, 8)])
SCHEDULERS = st.sampled_from([None, "euler_a", "dpm++_2m", "pndm"])
STARTS = st.sampled_from(["noise", "image", "mask"])


@functools.cache
def expected_picture(*key):
    return picture_alone(build(0, *key))


def build(
    image_id,
    seed,
    size,
    num_steps,
    guidance,
    scheduler,
    start,
    cache_interval,
    preview_steps=frozenset(),
):
    image, mask = drawn_image(seed, size)
    return make_request(
        image_id,
        prompt_token_ids=((48, seed + 1, 49, 0, 0),),
        seed=seed,
        height=size[0],
        width=size[1],
        num_inference_steps=num_steps,
        guidance_scale=guidance,
        scheduler=scheduler,
        cache_interval=cache_interval,
        image=None if start == "noise" else image,
        mask=mask if start == "mask" else None,
        strength=1.0,
        preview_steps=preview_steps,
    )


def drawn_image(seed, size):
    """A picture, and a mask that repaints about half of it and at least one pixel."""
    generator = np.random.default_rng(seed)
    mask = generator.integers(0, 256, size, np.uint8)
    mask[0, 0] = 255
    return generator.integers(0, 256, (*size, 3), np.uint8), mask


class ImageEngineMachine(RuleBasedStateMachine):
    """Clients of one engine."""

    def __init__(self):
        super().__init__()
        self.runner = FakeImageRunner()
        self.engine = make_engine(self.runner, max_num_images=MAX_NUM_IMAGES, max_rows=MAX_ROWS)
        self.live = {}  # image id -> what makes its picture
        self.steps = {}  # image id -> steps told so far
        self.previewed = {}  # image id -> the step of its latest preview
        self.next_id = 0

    @rule(
        seed=st.integers(0, 5),
        size=SIZES,
        num_steps=st.integers(1, 5),
        guidance=st.sampled_from([1.0, 4.0]),
        scheduler=SCHEDULERS,
        start=STARTS,
        cache_interval=st.integers(1, 4),
        preview_steps=st.frozensets(st.integers(1, 5), max_size=3),
    )
    def arrive(
        self, seed, size, num_steps, guidance, scheduler, start, cache_interval, preview_steps
    ):
        key = (seed, size, num_steps, guidance, scheduler, start, cache_interval)
        self.engine.add(build(self.next_id, *key, preview_steps))
        self.live[self.next_id] = key
        self.steps[self.next_id] = self.previewed[self.next_id] = 0
        self.next_id += 1

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def abort(self, data):
        image_id = data.draw(st.sampled_from(sorted(self.live)))
        self.engine.abort(image_id)
        del self.live[image_id]

    @rule()
    def step(self):
        before = self.engine.stats().num_rows
        for output in self.engine.step():
            assert output.image_id in self.live, "news of a request that is gone"
            if output.is_finished:
                expected = expected_picture(*self.live.pop(output.image_id))
                assert np.array_equal(output.picture, expected)
                assert self.steps[output.image_id] == output.num_steps
            elif output.preview is None:
                self.steps[output.image_id] += 1
                assert output.step == self.steps[output.image_id]
            else:
                self.check_preview(output)
        assert self.engine.stats().num_rows - before <= MAX_ROWS

    def check_preview(self, output):
        """A preview is of a step that was told, comes in order, and keeps what is to be kept."""
        assert self.previewed[output.image_id] < output.step <= self.steps[output.image_id]
        self.previewed[output.image_id] = output.step
        seed, size, *_, start, _ = self.live[output.image_id]
        if start == "mask":
            image, mask = drawn_image(seed, size)
            assert np.array_equal(output.preview[mask < 128], image[mask < 128])

    @invariant()
    def nobody_is_lost(self):
        assert self.engine.has_work == bool(self.live)
        stats = self.engine.stats()
        assert stats.num_running <= MAX_NUM_IMAGES
        # A preview for each that runs; and pictures, until so many wait that no step is taken.
        assert stats.num_decoding <= 3 * MAX_NUM_IMAGES

    def teardown(self):
        """Everybody who is left ends within a bounded number of steps."""
        most = 20 * (len(self.live) + 1)
        for _ in range(most):
            if not self.live:
                break
            self.step()
        assert not self.live
        assert not self.engine.has_work


TestImageEngine = ImageEngineMachine.TestCase
TestImageEngine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
