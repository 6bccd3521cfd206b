"""What a checkpoint's settings cannot say, and the sentence that it is told."""

from __future__ import annotations

import pytest

from engines.image.schedulers.schedule import NoiseSchedule


@pytest.mark.parametrize(
    ("class_name", "setting", "sentence"),
    [
        (
            "EulerDiscreteScheduler",
            {"beta_schedule": "sigmoid"},
            "beta_schedule is 'sigmoid', but EulerDiscreteScheduler supports 'linear' or "
            "'scaled_linear' or 'squaredcos_cap_v2'",
        ),
        (
            "EulerDiscreteScheduler",
            {"prediction_type": "flow"},
            "prediction_type is 'flow', but EulerDiscreteScheduler supports 'epsilon'",
        ),
        (
            "EulerAncestralDiscreteScheduler",
            {"prediction_type": "sample"},
            "prediction_type is 'sample', but EulerAncestralDiscreteScheduler supports 'epsilon'",
        ),
        (
            "EulerDiscreteScheduler",
            {"use_beta_sigmas": True},
            "use_beta_sigmas is True, but EulerDiscreteScheduler supports False",
        ),
        (
            "EulerDiscreteScheduler",
            {"interpolation_type": "log_linear"},
            "interpolation_type is 'log_linear', but",
        ),
        ("EulerDiscreteScheduler", {"timestep_type": "continuous"}, "timestep_type is 'contin"),
        ("EulerDiscreteScheduler", {"steps_offset": 0.5}, "steps_offset is 0.5, but .* a whole"),
        ("EulerDiscreteScheduler", {"steps_offset": True}, "steps_offset is True, but .* a whole"),
        ("EulerDiscreteScheduler", {"beta_start": "0.1"}, "beta_start is '0.1', but .* a number"),
        ("EulerDiscreteScheduler", {"beta_end": 1}, "beta_end is 1, but it must be above 0 and"),
        ("EulerDiscreteScheduler", {"num_train_timesteps": 0}, "num_train_timesteps is 0, but it"),
        ("EulerDiscreteScheduler", {"trained_betas": [0.1]}, "trained_betas has 1 values, but num"),
        ("EulerDiscreteScheduler", {"trained_betas": ["a"]}, "trained_betas is .* a list of num"),
        ("EulerDiscreteScheduler", {"sigma_min": 2.0, "sigma_max": 1.0}, "sigma_min is 2.0, but"),
        ("EulerDiscreteScheduler", {"sigma_min": 0.0}, "sigma_min is 0.0, but it must be above 0"),
        ("EulerDiscreteScheduler", {"mystery": 3}, "mystery is 3, but no supported scheduler has"),
        (
            "EulerDiscreteScheduler",
            {"use_karras_sigmas": True, "use_exponential_sigmas": True},
            "use_karras_sigmas and use_exponential_sigmas are both True",
        ),
        ("DDIMScheduler", {"thresholding": True}, "thresholding is True, but DDIMScheduler"),
        ("DDIMScheduler", {"clip_sample_range": -1.0}, "clip_sample_range is -1.0, but it must"),
        ("PNDMScheduler", {"skip_prk_steps": False}, "skip_prk_steps is False, but PNDMScheduler"),
        (
            "DPMSolverMultistepScheduler",
            {"algorithm_type": "sde-dpmsolver++"},
            "algorithm_type is 'sde-dpmsolver\\+\\+', but DPMSolverMultistepScheduler supports",
        ),
        ("DPMSolverMultistepScheduler", {"solver_order": 3}, "solver_order is 3, but .* 1 or 2"),
        ("DPMSolverMultistepScheduler", {"variance_type": "learned"}, "variance_type is 'learned'"),
        (
            "DPMSolverMultistepScheduler",
            {"use_lu_lambdas": True, "use_karras_sigmas": True},
            "use_lu_lambdas is True, but then use_karras_sigmas",
        ),
        (
            "DPMSolverMultistepScheduler",
            {"use_flow_sigmas": True},
            "prediction_type is 'epsilon', but use_flow_sigmas is True",
        ),
        (
            "UniPCMultistepScheduler",
            {"prediction_type": "flow_prediction"},
            "prediction_type is 'flow_prediction', but use_flow_sigmas is False",
        ),
        (
            "UniPCMultistepScheduler",
            {
                "use_flow_sigmas": True,
                "prediction_type": "flow_prediction",
                "use_karras_sigmas": True,
            },
            "use_flow_sigmas is True, but then use_karras_sigmas",
        ),
        ("UniPCMultistepScheduler", {"predict_x0": False}, "predict_x0 is False, but UniPC"),
        ("UniPCMultistepScheduler", {"solver_p": "x"}, "solver_p is 'x', but .* supports None"),
        ("UniPCMultistepScheduler", {"lower_order_final": False}, "lower_order_final is False"),
        ("LCMScheduler", {"original_inference_steps": 0}, "original_inference_steps is 0, but"),
        ("LCMScheduler", {"timestep_scaling": 0}, "timestep_scaling is 0, but it must be above"),
        ("FlowMatchEulerDiscreteScheduler", {"invert_sigmas": True}, "invert_sigmas is True, but"),
        ("FlowMatchEulerDiscreteScheduler", {"shift": 0.0}, "shift is 0.0, but it must be above 0"),
        ("FlowMatchEulerDiscreteScheduler", {"shift": None}, "shift is None, but .* a number"),
        ("FlowMatchEulerDiscreteScheduler", {"shift_terminal": 1.0}, "shift_terminal is 1.0, but"),
        (
            "FlowMatchEulerDiscreteScheduler",
            {"base_image_seq_len": 4096},
            "base_image_seq_len is 4096, but it must be below max_image_seq_len = 4096",
        ),
    ],
)
def test_a_setting_that_cannot_be_followed_is_refused_by_name_and_value(
    class_name, setting, sentence
):
    NoiseSchedule.from_config({"_class_name": class_name, "skip_prk_steps": True})
    with pytest.raises(ValueError, match=sentence):
        NoiseSchedule.from_config({"_class_name": class_name, "skip_prk_steps": True, **setting})
