"""A stepper in a batch: order, noise of its own, image-to-image, and nothing shared with others."""

from __future__ import annotations

import numpy as np
import pytest

from engines.image.schedulers.schedule import NoiseSchedule
from engines.image.schedulers.stepper import Sample, Stepper, combine
from tests.engines.image.reference import SCALED_LINEAR

SCHEDULE = NoiseSchedule.from_config(
    {**SCALED_LINEAR, "_class_name": "DDIMScheduler", "clip_sample": False, "steps_offset": 1}
)
FLOW = NoiseSchedule.from_config({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0})
NAMES = ("ddim", "pndm", "euler", "euler_a", "dpm++_2m", "dpm++_2m_karras", "unipc", "lcm")
SHAPE = (4, 6, 5)


class Request:
    """One picture in the making: a stepper, its generator and its sample."""

    def __init__(self, stepper: Stepper, seed: int) -> None:
        self.stepper = stepper
        self.rng = np.random.default_rng(seed)
        self.sample: Sample = self.draw() * np.float32(stepper.init_noise_sigma)
        self.index = 0

    @property
    def is_done(self) -> bool:
        return self.index == self.stepper.num_steps

    def draw(self) -> Sample:
        return self.rng.standard_normal(SHAPE, dtype=np.float32)

    def step(self) -> None:
        stepper, index = self.stepper, self.index
        scaled = stepper.scale_input(self.sample, index)
        output = np.tanh(scaled * np.float32(0.5) + np.float32(stepper.timesteps[index] / 1000))
        noise = self.draw() if stepper.uses_noise(index) else None
        self.sample = stepper.step(output, index, self.sample, noise)
        self.index += 1


def requests() -> list[Request]:
    return [
        Request(SCHEDULE.stepper(count, scheduler=name), seed)
        for seed, (name, count) in enumerate(zip(NAMES, (3, 4, 5, 6, 7, 8, 9, 10), strict=True))
    ]


def test_requests_that_join_and_leave_a_batch_get_the_bits_they_get_alone():
    alone = requests()
    for request in alone:
        while not request.is_done:
            request.step()
    together = requests()
    while any(not request.is_done for request in together):
        for request in together[::-1]:
            if not request.is_done:
                request.step()
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.sample, other.sample)


@pytest.mark.parametrize("name", NAMES)
def test_the_caller_may_overwrite_its_arrays_after_every_step(name):
    kept, reused = (SCHEDULE.stepper(6, scheduler=name) for _ in range(2))
    rng = np.random.default_rng(0)
    sample = rng.standard_normal(SHAPE, dtype=np.float32)
    buffers = np.empty((3, *SHAPE), np.float32)  # output, sample and noise, as a batch holds them
    buffers[1] = sample
    for index in range(kept.num_steps):
        output, noise = rng.standard_normal((2, *SHAPE), dtype=np.float32)
        sample = kept.step(output, index, sample, noise)
        buffers[0], buffers[2] = output, noise
        buffers[1] = reused.step(buffers[0], index, buffers[1], buffers[2])
        np.testing.assert_array_equal(sample, buffers[1])


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_knows_the_picture_ends_at_it(name):
    rng = np.random.default_rng(0)
    picture = rng.standard_normal(SHAPE, dtype=np.float32)
    config = {**SCALED_LINEAR, "_class_name": "DDIMScheduler", "clip_sample": False}
    config["set_alpha_to_one"] = True
    stepper = NoiseSchedule.from_config(config).stepper(12, scheduler=name)
    sample = rng.standard_normal(SHAPE, dtype=np.float32) * np.float32(stepper.init_noise_sigma)
    for index in range(stepper.num_steps):
        # The prediction for which x0 is the picture, since x0 is linear in it.
        at_zero = stepper.predicted_original(np.zeros_like(picture), index, sample)
        slope = stepper.predicted_original(np.ones_like(picture), index, sample) - at_zero
        output = (picture - at_zero) / slope
        preview = stepper.predicted_original(output, index, sample)
        np.testing.assert_allclose(preview, picture, atol=2e-3)
        noise = rng.standard_normal(SHAPE, dtype=np.float32)
        sample = stepper.step(output, index, sample, noise)
    np.testing.assert_allclose(sample, picture, atol=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_steps_come_once_and_in_order_from_any_start(name):
    stepper = SCHEDULE.stepper(6, scheduler=name)
    zeros = np.zeros(SHAPE, np.float32)
    for index in (-1, stepper.num_steps):
        with pytest.raises(ValueError, match=f"index is {index}, but the request has"):
            stepper.step(zeros, index, zeros, zeros)
    stepper.step(zeros, 2, zeros, zeros)
    for index in (2, 4):
        with pytest.raises(ValueError, match=f"index is {index}, but the next step is 3"):
            stepper.step(zeros, index, zeros, zeros)
    stepper.step(zeros, 3, zeros, zeros)


def test_only_stochastic_steps_ask_for_noise_and_they_insist():
    zeros = np.zeros(SHAPE, np.float32)
    for name in NAMES:
        stepper = SCHEDULE.stepper(4, scheduler=name)
        asks = [stepper.uses_noise(index) for index in range(stepper.num_steps)]
        assert asks == [name in ("euler_a", "lcm")] * 3 + [False] * (stepper.num_steps - 3)
        if asks[0]:
            with pytest.raises(ValueError, match="noise is None, but step 0 is stochastic"):
                stepper.step(zeros, 0, zeros)
    stochastic = {"_class_name": "FlowMatchEulerDiscreteScheduler", "stochastic_sampling": True}
    flow = NoiseSchedule.from_config(stochastic).stepper(3)
    assert [flow.uses_noise(index) for index in range(3)] == [True, True, False]
    assert not any(FLOW.stepper(3).uses_noise(index) for index in range(3))


def test_image_to_image_starts_where_the_pipelines_of_diffusion_models_do():
    stepper = SCHEDULE.stepper(10)
    starts = [stepper.start_index(strength) for strength in (1.0, 0.75, 0.6, 0.05, 0.0)]
    assert starts == [0, 3, 4, 10, 10]
    for schedule in (SCHEDULE, FLOW):
        for strength in (-0.1, 1.1, float("nan")):
            with pytest.raises(ValueError, match=f"strength is {strength}, but it must be between"):
                schedule.stepper(10).start_index(strength)


def test_added_noise_is_as_strong_as_the_step_expects():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((64, 64), dtype=np.float32)
    for name in NAMES:
        stepper = SCHEDULE.stepper(8, scheduler=name)
        for index in (0, 3, 7):
            sample = stepper.add_noise(np.zeros_like(noise), noise, index)
            given = stepper.scale_input(sample, index)
            clean = stepper.scale_input(
                stepper.add_noise(np.ones_like(noise), np.zeros_like(noise), index), index
            )
            assert np.var(given) / np.var(noise) + clean[0, 0] ** 2 == pytest.approx(1, abs=1e-5)


def test_a_coefficient_of_zero_ignores_even_what_is_not_finite():
    bad = np.full(3, np.inf, np.float32)
    good = np.arange(3, dtype=np.float32)
    np.testing.assert_array_equal(combine((0.0, bad), (2.0, good)), good * 2)
    np.testing.assert_array_equal(combine((0.0, bad)), np.zeros(3, np.float32))
