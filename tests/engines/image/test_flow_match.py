"""Models of flow: SD3's, FLUX's and Qwen-Image's schedules, and multistep solvers on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engines.image.schedulers.schedule import NoiseSchedule
from tests.engines.image.reference import SHAPE, assert_equal, make_pair

NAME = "FlowMatchEulerDiscreteScheduler"
STEPS = (1, 2, 4, 7, 20, 50)
SD3: dict[str, Any] = {"num_train_timesteps": 1000, "shift": 3.0}
FLUX_DEV: dict[str, Any] = {
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 4096,
    "max_shift": 1.15,
    "num_train_timesteps": 1000,
    "shift": 3.0,
    "use_dynamic_shifting": True,
    "even_steps": True,
}
FLUX_SCHNELL = {**FLUX_DEV, "shift": 1.0, "use_dynamic_shifting": False}
QWEN_IMAGE: dict[str, Any] = {
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "invert_sigmas": False,
    "max_image_seq_len": 8192,
    "max_shift": 0.9,
    "num_train_timesteps": 1000,
    "shift": 1.0,
    "shift_terminal": 0.02,
    "stochastic_sampling": False,
    "time_shift_type": "exponential",
    "use_beta_sigmas": False,
    "use_dynamic_shifting": True,
    "use_exponential_sigmas": False,
    "use_karras_sigmas": False,
    "even_steps": True,
}


def mu(config: dict[str, Any], image_seq_len: int) -> float:
    """What the pipelines pass as `mu`: between the two given points, for these lengths."""
    lengths = config["base_image_seq_len"], config["max_image_seq_len"]
    return float(np.interp(image_seq_len, lengths, (config["base_shift"], config["max_shift"])))


def even(num_steps: int) -> list[float]:
    """What the FLUX and Qwen-Image pipelines pass as `sigmas`."""
    return np.linspace(1.0, 1 / num_steps, num_steps).tolist()


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("num_steps", STEPS[1:])
def test_the_static_shift_of_sd3_equals_diffusers(num_steps, start):
    for shift in (1.0, 3.0, 6.0):
        assert_equal(make_pair(NAME, {**SD3, "shift": shift}, num_steps), start)


@pytest.mark.parametrize("num_steps", STEPS)
def test_the_even_steps_of_flux_schnell_equal_diffusers(num_steps):
    assert_equal(make_pair(NAME, FLUX_SCHNELL, num_steps, sigmas=even(num_steps)))


@pytest.mark.parametrize("image_seq_len", [256, 1024, 4096])
@pytest.mark.parametrize("config", [FLUX_DEV, QWEN_IMAGE], ids=["flux", "qwen-image"])
def test_the_dynamic_shift_of_flux_and_qwen_image_equals_diffusers(config, image_seq_len):
    shift = mu(config, image_seq_len)
    for time_shift_type in ("exponential", "linear"):
        shifted = {**config, "time_shift_type": time_shift_type}
        for num_steps in STEPS:
            if num_steps == 1 and "shift_terminal" in config:
                continue  # diffusers divides by zero
            pair = make_pair(
                NAME,
                shifted,
                num_steps,
                image_seq_len=image_seq_len,
                sigmas=even(num_steps),
                mu=shift,
            )
            assert_equal(pair, start=num_steps // 3)


def test_sd3_with_a_dynamic_shift_equals_diffusers():
    config = {**FLUX_DEV, "even_steps": False}
    for num_steps in (1, 4, 20):
        pair = make_pair(NAME, config, num_steps, image_seq_len=2000, mu=mu(config, 2000))
        assert_equal(pair)


@pytest.mark.parametrize(
    "setting",
    [
        {"stochastic_sampling": True},
        {"use_karras_sigmas": True},
        {"use_exponential_sigmas": True},
        {"shift_terminal": 0.1},
        {"num_train_timesteps": 777},
    ],
    ids=str,
)
def test_the_settings_of_flow_match_euler_equal_diffusers(setting):
    for num_steps in (2, 7, 20):
        assert_equal(make_pair(NAME, {**SD3, **setting}, num_steps))


def test_a_single_step_of_qwen_image_starts_from_pure_noise():
    stepper = NoiseSchedule.from_config({"_class_name": NAME, **QWEN_IMAGE}).stepper(
        1, image_seq_len=1024
    )
    assert stepper.timesteps.tolist() == [1000.0]
    noise = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    picture = np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32)
    np.testing.assert_allclose(stepper.step(noise - picture, 0, noise), picture, atol=1e-6)


@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler"])
def test_multistep_solvers_on_flow_equal_diffusers(name):
    config = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    for shift in (1.0, 3.0):
        for num_steps in STEPS:
            assert_equal(make_pair(name, {**config, "flow_shift": shift}, num_steps))
        assert_equal(make_pair(name, {**config, "flow_shift": shift}, 20), start=6)


@pytest.mark.parametrize("scheduler", ["dpm++_2m", "unipc"])
def test_a_request_may_take_a_multistep_solver_on_a_checkpoint_of_flow(scheduler):
    by_hand = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    pair = make_pair(NAME, SD3, 9, scheduler=scheduler, translated={**by_hand, "flow_shift": 3.0})
    assert_equal(pair)
    by_hand["use_dynamic_shifting"] = True
    pair = make_pair(
        NAME,
        FLUX_DEV,
        9,
        scheduler=scheduler,
        translated=by_hand,
        image_seq_len=1024,
        mu=mu(FLUX_DEV, 1024),
    )
    assert_equal(pair)


def test_a_request_may_take_flow_match_euler_on_a_checkpoint_of_a_multistep_solver():
    unipc = {
        "_class_name": "UniPCMultistepScheduler",
        "use_flow_sigmas": True,
        "prediction_type": "flow_prediction",
        "flow_shift": 3.0,
    }
    ours = NoiseSchedule.from_config(unipc).stepper(5, scheduler="flow_match_euler")
    theirs = make_pair(NAME, {"shift": 3.0}, 5).scheduler
    np.testing.assert_allclose(ours.timesteps, theirs.timesteps.numpy(), rtol=1e-6)


def test_image_to_image_starts_where_the_pipelines_of_flow_do():
    for config, name in (
        (SD3, NAME),
        (
            {"use_flow_sigmas": True, "prediction_type": "flow_prediction"},
            "UniPCMultistepScheduler",
        ),
    ):
        stepper = NoiseSchedule.from_config({"_class_name": name, **config}).stepper(10)
        starts = [stepper.start_index(strength) for strength in (1.0, 0.75, 0.6, 0.05, 0.0)]
        assert starts == [0, 2, 4, 9, 10]


def test_a_preview_is_the_whole_way_along_the_flow():
    stepper = NoiseSchedule.from_config({"_class_name": NAME, **SD3}).stepper(4)
    rng = np.random.default_rng(0)
    noise, picture = rng.standard_normal((2, *SHAPE)).astype(np.float32)
    for index in range(4):
        sample = stepper.add_noise(picture, noise, index)
        preview = stepper.predicted_original(noise - picture, index, sample)
        np.testing.assert_allclose(preview, picture, atol=1e-6)


def test_a_schedule_that_depends_on_the_size_asks_for_it():
    schedule = NoiseSchedule.from_config({"_class_name": NAME, **FLUX_DEV})
    for scheduler in (None, "unipc", "dpm++_2m"):
        with pytest.raises(ValueError, match="image_seq_len is None, but use_dynamic_shifting"):
            schedule.stepper(4, scheduler=scheduler)
