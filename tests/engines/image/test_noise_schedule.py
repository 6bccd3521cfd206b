"""Reading a checkpoint's schedule, choosing another scheduler, refusing what is not supported."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from engines.image.schedulers.schedule import SCHEDULERS, SHORT_NAMES, NoiseSchedule
from tests.engines.image.reference import SCALED_LINEAR, SHAPE, assert_equal, make_pair

SD15: dict[str, Any] = {
    **SCALED_LINEAR,
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}
SD21: dict[str, Any] = {
    **SD15,
    "_class_name": "DDIMScheduler",
    "prediction_type": "v_prediction",
}
SDXL: dict[str, Any] = {
    **SD15,
    "_class_name": "EulerDiscreteScheduler",
    "interpolation_type": "linear",
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "timestep_spacing": "leading",
    "use_karras_sigmas": False,
}
SDXL_TURBO: dict[str, Any] = {
    **SDXL,
    "_class_name": "EulerAncestralDiscreteScheduler",
    "timestep_spacing": "trailing",
}
LCM: dict[str, Any] = {
    **SD15,
    "_class_name": "LCMScheduler",
    "original_inference_steps": 50,
    "dynamic_thresholding_ratio": 0.995,
    "rescale_betas_zero_snr": False,
    "thresholding": False,
    "timestep_scaling": 10.0,
    "timestep_spacing": "leading",
}
CHECKPOINTS = {"sd15": SD15, "sd21": SD21, "sdxl": SDXL, "sdxl-turbo": SDXL_TURBO, "lcm": LCM}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
DIFFUSION_NAMES = [name for name in SHORT_NAMES if name != "flow_match_euler"]


@pytest.mark.parametrize("scheduler", [None, *DIFFUSION_NAMES])
@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_any_scheduler_on_a_checkpoint_equals_the_one_that_diffusers_converts(
    checkpoint, scheduler
):
    config = CHECKPOINTS[checkpoint]
    for num_steps in (2, 9):
        # Where the first timestep is the noisiest, PNDM's own rounding is near the tolerance.
        exact = scheduler == "pndm"
        pair = make_pair(config["_class_name"], config, num_steps, scheduler=scheduler)
        assert_equal(pair, exact=exact)


def test_short_names_and_class_names_mean_the_same_steps():
    schedule = NoiseSchedule.from_config(SDXL)
    for short, (class_name, pinned) in SHORT_NAMES.items():
        if short in DIFFUSION_NAMES and "use_karras_sigmas" not in pinned:
            by_name = schedule.stepper(7, scheduler=short)
            by_class = schedule.stepper(7, scheduler=class_name)
            assert type(by_name) is type(by_class)
            assert by_name.timesteps.tolist() == by_class.timesteps.tolist()


def test_dpm_2m_without_karras_is_that_whatever_the_checkpoint_says():
    plain = NoiseSchedule.from_config(SDXL).stepper(7, scheduler="dpm++_2m")
    config = {**SDXL, "use_karras_sigmas": True}
    pinned = NoiseSchedule.from_config(config).stepper(7, scheduler="dpm++_2m")
    karras = NoiseSchedule.from_config(SDXL).stepper(7, scheduler="dpm++_2m_karras")
    assert plain.timesteps.tolist() == pinned.timesteps.tolist() != karras.timesteps.tolist()


def test_a_file_is_read_with_what_only_python_writes(tmp_path):
    path = tmp_path / "scheduler_config.json"
    config = {**SDXL, "_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -np.inf}
    path.write_text(json.dumps(config))
    assert "-Infinity" in path.read_text()
    schedule = NoiseSchedule.read(path)
    assert schedule.scheduler == "DPMSolverMultistepScheduler"
    assert schedule.config["beta_end"] == 0.012
    assert "_diffusers_version" not in schedule.config


@pytest.mark.parametrize("content", ["{", "[]", '"DDIMScheduler"'])
def test_a_file_that_is_no_settings_is_refused(tmp_path, content):
    path = tmp_path / "scheduler_config.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"scheduler_config\.json (cannot be read|is not a JSON)"):
        NoiseSchedule.read(path)


def test_the_scheduler_of_a_checkpoint_that_is_not_supported_can_be_replaced():
    config = {**SDXL, "_class_name": "HeunDiscreteScheduler"}
    with pytest.raises(ValueError, match="is HeunDiscreteScheduler, but it must be one of: DDIM"):
        NoiseSchedule.from_config(config)
    schedule = NoiseSchedule.from_config(config, scheduler="EulerDiscreteScheduler")
    assert schedule.stepper(3).num_steps == 3
    with pytest.raises(ValueError, match="the scheduler of the checkpoint is None"):
        NoiseSchedule.from_config({})


def test_settings_of_other_schedulers_and_switches_that_are_null_change_nothing():
    config = {
        **SDXL,
        "solver_type": "bh2",
        "use_karras_sigmas": None,
        "sigma_min": None,
        "rho": 7.0,
        "a_setting_of_the_future": None,
    }
    ours, plain = (NoiseSchedule.from_config(settings).stepper(5) for settings in (config, SDXL))
    assert ours.timesteps.tolist() == plain.timesteps.tolist()
    assert ours.init_noise_sigma == plain.init_noise_sigma


def test_a_request_is_refused_what_the_checkpoint_contradicts():
    schedule = NoiseSchedule.from_config({**SDXL, "thresholding": True})
    assert schedule.stepper(4).num_steps == 4  # Euler has no such setting
    with pytest.raises(ValueError, match="thresholding is True, but UniPCMultistepScheduler"):
        schedule.stepper(4, scheduler="unipc")


def test_a_scheduler_of_no_name_or_of_the_other_kind_is_refused_with_those_that_fit():
    schedule = NoiseSchedule.from_config(SDXL)
    names = "ddim, pndm, euler, euler_a, dpm\\+\\+_2m, dpm\\+\\+_2m_karras, unipc, lcm$"
    with pytest.raises(ValueError, match=f"scheduler is 'heun', but it must be one of: {names}"):
        schedule.stepper(4, scheduler="heun")
    with pytest.raises(ValueError, match=f"'flow_match_euler', .* no flow, .*: {names}"):
        schedule.stepper(4, scheduler="flow_match_euler")
    flow = NoiseSchedule.from_config(FLOW)
    fitting = "dpm\\+\\+_2m, unipc, flow_match_euler$"
    for name in ("ddim", "EulerDiscreteScheduler", "lcm"):
        with pytest.raises(ValueError, match=f"scheduler is '{name}', .* flow, .*: {fitting}"):
            flow.stepper(4, scheduler=name)
    with pytest.raises(ValueError, match="use_flow_sigmas is True, but then use_karras_sigmas"):
        flow.stepper(4, scheduler="dpm++_2m_karras")


@pytest.mark.parametrize("scheduler", [*DIFFUSION_NAMES])
def test_a_number_of_steps_that_does_not_fit_is_refused(scheduler):
    schedule = NoiseSchedule.from_config(SDXL)
    limit = 50 if scheduler == "lcm" else 1000
    for num_steps in (0, -1, 1001):
        with pytest.raises(ValueError, match=f"num_inference_steps is {num_steps}, but .* {limit}"):
            schedule.stepper(num_steps, scheduler=scheduler)


def test_steps_that_would_leave_the_schedule_or_share_a_noise_level_are_refused():
    schedule = NoiseSchedule.from_config(SDXL)
    with pytest.raises(ValueError, match="steps_offset is 1, but with 1000 steps it leaves the"):
        schedule.stepper(1000)
    with pytest.raises(ValueError, match="num_inference_steps is 1000, but the schedule does not"):
        schedule.stepper(1000, scheduler="unipc")


def test_bounds_that_leave_no_noise_level_are_refused():
    for config, name, sentence in (
        ({"sigma_min": 20.0}, "unipc", "sigma_min is 20, but it must be at most the largest noise"),
        ({"sigma_min": 20.0}, "euler", "sigma_min is 20, but it must be at most the largest noise"),
        ({"lambda_min_clipped": 9.0}, None, "lambda_min_clipped is 9.0, but it must be at most 3."),
    ):
        class_name = "DPMSolverMultistepScheduler"
        spread = {"use_karras_sigmas": "sigma_min" in config}
        schedule = NoiseSchedule.from_config(
            {**SCALED_LINEAR, **config, **spread, "_class_name": class_name}
        )
        with pytest.raises(ValueError, match=sentence):
            schedule.stepper(4, scheduler=name)


def test_predicted_noise_needs_some_signal():
    config = {**SDXL, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    schedule = NoiseSchedule.from_config(config)
    for scheduler in ("ddim", "lcm"):
        with pytest.raises(ValueError, match="prediction_type is 'epsilon', but with rescale_bet"):
            schedule.stepper(4, scheduler=scheduler)
    leading = NoiseSchedule.from_config({**config, "timestep_spacing": "leading"})
    assert leading.stepper(4, scheduler="ddim").timesteps[0] == 751


def test_the_schedulers_are_frozen_tables():
    with pytest.raises(TypeError):
        SCHEDULERS["DDIMScheduler"] = SCHEDULERS["LCMScheduler"]  # type: ignore[index]
    schedule = NoiseSchedule.from_config(SDXL)
    with pytest.raises(AttributeError):
        schedule.scheduler = "DDIMScheduler"  # type: ignore[misc]
    with pytest.raises(TypeError):
        schedule.config["beta_end"] = 0.5  # type: ignore[index]


def test_a_sample_may_have_any_shape_and_is_not_changed():
    rng = np.random.default_rng(0)
    for shape in (SHAPE, (16,), (7, 64)):
        for name in DIFFUSION_NAMES:
            stepper = NoiseSchedule.from_config(SDXL).stepper(3, scheduler=name)
            sample = rng.standard_normal(shape).astype(np.float32)
            for index in range(stepper.num_steps):
                output, noise = rng.standard_normal((2, *shape)).astype(np.float32)
                kept = sample.copy(), output.copy(), noise.copy()
                advanced = stepper.step(output, index, sample, noise)
                assert advanced.shape == shape
                assert advanced.dtype == np.float32
                for array, copy in zip((sample, output, noise), kept, strict=True):
                    np.testing.assert_array_equal(array, copy)
                sample = advanced
