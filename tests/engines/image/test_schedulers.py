"""Every scheduler of noise, sample and velocity models, beside the diffusers one of its name."""

from __future__ import annotations

import itertools
from typing import Any

import diffusers
import numpy as np
import pytest

from engines.image.schedulers.settings import Betas
from engines.image.schedulers.tables import cumulative_alphas, space_timesteps
from tests.engines.image.reference import SCALED_LINEAR, assert_equal, errors, make_pair

STEPS = (1, 2, 4, 7, 20, 50)
BETAS: dict[str, dict[str, Any]] = {
    "linear": {"beta_schedule": "linear"},
    "scaled_linear": SCALED_LINEAR,
    "squaredcos_cap_v2": {"beta_schedule": "squaredcos_cap_v2"},
}
SPACINGS = ("leading", "trailing", "linspace")
ALL = ("epsilon", "sample", "v_prediction")
NOT_SAMPLE = ("epsilon", "v_prediction")
PREDICTIONS = {
    "DDIMScheduler": ALL,
    "PNDMScheduler": NOT_SAMPLE,
    "EulerDiscreteScheduler": ALL,
    "EulerAncestralDiscreteScheduler": NOT_SAMPLE,
    "DPMSolverMultistepScheduler": ALL,
    "UniPCMultistepScheduler": ALL,
    "LCMScheduler": ALL,
}
REQUIRED = {"PNDMScheduler": {"skip_prk_steps": True}}
# Where hardly any signal is left, float32 loses what diffusers computes, so it gets float64.
INEXACT = {
    ("EulerDiscreteScheduler", "squaredcos_cap_v2"),
    ("EulerAncestralDiscreteScheduler", "squaredcos_cap_v2"),
    ("PNDMScheduler", "squaredcos_cap_v2"),
    ("EulerDiscreteScheduler", "linear"),
    ("PNDMScheduler", "linear"),
}
KINDS = [(name, kind) for name, kinds in PREDICTIONS.items() for kind in kinds]
SPREADS: list[tuple[str, dict[str, Any]]] = [
    *itertools.product(
        ("EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"),
        ({}, {"use_karras_sigmas": True}, {"use_exponential_sigmas": True}),
    ),
    *itertools.product(
        ("EulerDiscreteScheduler", "UniPCMultistepScheduler"),
        [{"use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 10.0}],
    ),
]


def settings(name: str, prediction_type: str, betas: str = "scaled_linear") -> dict[str, Any]:
    return {**BETAS[betas], **REQUIRED.get(name, {}), "prediction_type": prediction_type}


@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize(("name", "prediction_type"), KINDS)
def test_every_step_equals_diffusers_over_spacings_and_step_counts(name, prediction_type, betas):
    config = settings(name, prediction_type, betas)
    steps = STEPS if betas == "scaled_linear" else STEPS[::2]
    for spacing, num_steps in itertools.product(SPACINGS, steps):
        pair = make_pair(name, {**config, "timestep_spacing": spacing}, num_steps)
        assert_equal(pair, exact=(name, betas) in INEXACT)


@pytest.mark.parametrize(("name", "prediction_type"), KINDS)
def test_steps_offset_and_starts_in_the_middle_equal_diffusers(name, prediction_type):
    config = settings(name, prediction_type)
    for offset, num_steps in ((0, 7), (1, 7), (1, 20)):
        spaced = {**config, "timestep_spacing": "leading", "steps_offset": offset}
        for start in (0, 1, num_steps // 2, num_steps - 1):
            assert_equal(make_pair(name, spaced, num_steps), start)


@pytest.mark.parametrize("prediction_type", ALL)
@pytest.mark.parametrize("name", ["DDIMScheduler", "LCMScheduler"])
def test_clipped_samples_and_the_final_alpha_equal_diffusers(name, prediction_type):
    for final, clip in ((True, True), (False, False), (False, True)):
        config = {
            **settings(name, prediction_type),
            "set_alpha_to_one": final,
            "clip_sample": clip,
            "clip_sample_range": 0.7,
        }
        for num_steps in (1, 7, 20):
            assert_equal(make_pair(name, config, num_steps))


def test_the_final_alpha_of_pndm_equals_diffusers():
    for final in (True, False):
        config = {**settings("PNDMScheduler", "epsilon"), "set_alpha_to_one": final}
        for num_steps in (1, 4, 20):
            assert_equal(make_pair("PNDMScheduler", config, num_steps))


@pytest.mark.parametrize("final", ["zero", "sigma_min"])
@pytest.mark.parametrize(("name", "spread"), SPREADS, ids=str)
def test_spread_sigmas_and_the_final_sigma_equal_diffusers(name, spread, final):
    for prediction_type, num_steps in itertools.product(ALL, (1, 4, 20)):
        config = {**settings(name, prediction_type), **spread, "final_sigmas_type": final}
        assert_equal(make_pair(name, config, num_steps))
        if num_steps > 4:
            assert_equal(make_pair(name, config, num_steps), start=num_steps // 3)


@pytest.mark.parametrize(
    "setting",
    [
        {"solver_order": 1},
        {"solver_type": "heun"},
        {"solver_type": "bh2"},
        {"lower_order_final": False, "final_sigmas_type": "sigma_min"},
        {"final_sigmas_type": "sigma_min"},
        {"euler_at_final": True, "final_sigmas_type": "sigma_min"},
        {"use_lu_lambdas": True},
        {"use_karras_sigmas": True, "beta_schedule": "squaredcos_cap_v2"},
        {"lambda_min_clipped": -5.1, "beta_schedule": "squaredcos_cap_v2"},
        {"lambda_min_clipped": -2.0, "timestep_spacing": "trailing"},
        {"lambda_min_clipped": -2.0, "timestep_spacing": "leading"},
    ],
    ids=str,
)
def test_the_settings_of_dpm_solver_equal_diffusers(setting):
    name = "DPMSolverMultistepScheduler"
    for prediction_type, num_steps in itertools.product(ALL, (2, 7, 16)):
        assert_equal(make_pair(name, {**settings(name, prediction_type), **setting}, num_steps))


@pytest.mark.parametrize(
    "setting",
    [
        {"solver_order": 1},
        {"solver_order": 3},
        {"solver_type": "bh1", "final_sigmas_type": "sigma_min"},
        {"solver_type": "midpoint"},
        {"disable_corrector": [0, 2]},
    ],
    ids=str,
)
def test_the_settings_of_unipc_equal_diffusers(setting):
    name = "UniPCMultistepScheduler"
    for prediction_type, num_steps in itertools.product(ALL, (2, 7, 16)):
        # The third order solves a system whose float32 rounding is more than the tolerance.
        pair = make_pair(name, {**settings(name, prediction_type), **setting}, num_steps)
        assert_equal(pair, exact=setting.get("solver_order") == 3)


def test_the_last_step_of_unipc_is_finite_where_diffusers_divides_by_zero():
    config = {**SCALED_LINEAR, "solver_type": "bh1"}
    stepper = make_pair("UniPCMultistepScheduler", config, 2).stepper
    sample = np.ones(3, np.float32)
    for index in range(2):
        original = stepper.predicted_original(sample, index, sample)
        sample = stepper.step(sample, index, sample)
    np.testing.assert_allclose(sample, original, rtol=0.5)
    assert np.isfinite(sample).all()


@pytest.mark.parametrize(
    "name", [name for name in PREDICTIONS if name not in ("PNDMScheduler", "LCMScheduler")]
)
def test_a_schedule_of_zero_terminal_snr_equals_diffusers(name):
    config = {
        **settings(name, "v_prediction"),
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
    }
    for num_steps in STEPS:
        assert_equal(make_pair(name, config, num_steps), exact="Euler" in name)


def test_lcm_on_zero_terminal_snr_equals_diffusers():
    config = {**settings("LCMScheduler", "v_prediction"), "rescale_betas_zero_snr": True}
    for num_steps in (1, 4, 8):
        assert_equal(make_pair("LCMScheduler", config, num_steps))


def test_trained_betas_and_another_training_length_equal_diffusers():
    trained = np.linspace(0.001, 0.03, 200).tolist()
    for config in (
        {"trained_betas": trained, "num_train_timesteps": 200},
        {**SCALED_LINEAR, "num_train_timesteps": 777},
    ):
        for name in ("DDIMScheduler", "EulerDiscreteScheduler", "UniPCMultistepScheduler"):
            assert_equal(make_pair(name, config, 7))


def test_lcm_chooses_among_the_steps_of_its_distillation_as_diffusers_does():
    for distilled, num_steps in ((50, 3), (50, 50), (40, 6), (100, 7)):
        config = {"original_inference_steps": distilled, "timestep_scaling": 8.0}
        assert_equal(make_pair("LCMScheduler", config, num_steps))


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("betas", BETAS)
def test_the_cumulative_alphas_equal_diffusers(betas, zero_snr):
    config = {**BETAS[betas], "rescale_betas_zero_snr": zero_snr}
    theirs = diffusers.DDIMScheduler(**config).alphas_cumprod.numpy()
    ours = cumulative_alphas(Betas(**config))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6 if zero_snr else 2e-7)
    assert (ours[-1] == 0) is np.True_ if zero_snr else ours[-1] > 0


def test_trailing_steps_are_as_many_as_asked_where_diffusers_has_one_too_many():
    scheduler = diffusers.DDIMScheduler(timestep_spacing="trailing")
    scheduler.set_timesteps(61)
    theirs = scheduler.timesteps.numpy()
    assert len(theirs) == 62
    assert theirs[-1] == -1
    np.testing.assert_array_equal(space_timesteps("trailing", 61, Betas(), 0), theirs[:-1])


def test_the_comparison_tells_two_schedules_apart():
    pair = make_pair("EulerDiscreteScheduler", SCALED_LINEAR, 4)
    other = make_pair("EulerDiscreteScheduler", {**SCALED_LINEAR, "beta_end": 0.01201}, 4)
    mixed = type(pair)(pair.stepper, other.scheduler)
    assert max(error for _, error in errors(mixed)) > 1e-4
    with pytest.raises(AssertionError, match="differs by"):
        assert_equal(mixed)
