"""The noise schedule of an engine: the checkpoint's scheduler, and any other on the same betas."""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from engines.image.schedulers.ddim import DDIMSettings, PNDMSettings
from engines.image.schedulers.dpm_solver import DPMSolverSettings
from engines.image.schedulers.euler import EulerAncestralSettings, EulerSettings
from engines.image.schedulers.flow_match import FlowMatchEulerSettings
from engines.image.schedulers.lcm import LCMSettings
from engines.image.schedulers.settings import SchedulerSettings, read_settings, setting_names
from engines.image.schedulers.stepper import Stepper
from engines.image.schedulers.unipc import UniPCSettings

SCHEDULER_CONFIG_NAME = "scheduler_config.json"

SCHEDULERS: Mapping[str, SchedulerSettings] = MappingProxyType(
    {
        "DDIMScheduler": DDIMSettings(),
        "PNDMScheduler": PNDMSettings(),
        "EulerDiscreteScheduler": EulerSettings(),
        "EulerAncestralDiscreteScheduler": EulerAncestralSettings(),
        "DPMSolverMultistepScheduler": DPMSolverSettings(),
        "UniPCMultistepScheduler": UniPCSettings(),
        "LCMScheduler": LCMSettings(),
        "FlowMatchEulerDiscreteScheduler": FlowMatchEulerSettings(),
    }
)

_PLAIN_2M = {
    "algorithm_type": "dpmsolver++",
    "solver_order": 2,
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "use_lu_lambdas": False,
}
# A short name says what it means whatever the checkpoint's file says of these settings.
SHORT_NAMES: Mapping[str, tuple[str, Mapping[str, object]]] = MappingProxyType(
    {
        "ddim": ("DDIMScheduler", {}),
        "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
        "euler": ("EulerDiscreteScheduler", {}),
        "euler_a": ("EulerAncestralDiscreteScheduler", {}),
        "dpm++_2m": ("DPMSolverMultistepScheduler", _PLAIN_2M),
        "dpm++_2m_karras": (
            "DPMSolverMultistepScheduler",
            _PLAIN_2M | {"use_karras_sigmas": True},
        ),
        "unipc": ("UniPCMultistepScheduler", {}),
        "lcm": ("LCMScheduler", {}),
        "flow_match_euler": ("FlowMatchEulerDiscreteScheduler", {}),
    }
)

_MULTISTEP = {"DPMSolverMultistepScheduler", "UniPCMultistepScheduler"}
_FLOW = _MULTISTEP | {"FlowMatchEulerDiscreteScheduler"}
# Settings of schedulers that are not here, or of switches that are off: they change nothing.
_WITHOUT_EFFECT = {
    "corrector_order",
    "dynamic_thresholding_ratio",
    "predictor_order",
    "rho",
    "sample_max_value",
    "sigma_data",
    "sigma_schedule",
    "tau_func",
}
_KNOWN = _WITHOUT_EFFECT.union(*(setting_names(defaults) for defaults in SCHEDULERS.values()))


@dataclass(frozen=True, slots=True)
class NoiseSchedule:
    """What an engine knows of its model's noise: `config`, as in `scheduler_config.json`.

    Only what the file names is kept. A setting that it leaves out has the default of the scheduler
    that a request chooses, as when the library builds one scheduler from another's file.

    Raises:
        ValueError: `scheduler` is not supported, a setting is unknown, or the scheduler does not
            support its value; the message names it.
    """

    scheduler: str  # a key of SCHEDULERS
    config: Mapping[str, object]

    def __post_init__(self) -> None:
        if self.scheduler not in SCHEDULERS:
            raise ValueError(
                f"the scheduler of the checkpoint is {self.scheduler}, but it must be one of: "
                + ", ".join(SCHEDULERS)
            )
        for name, value in self.config.items():
            if name not in _KNOWN and value is not None:
                raise ValueError(
                    f"{name} is {value!r}, but no supported scheduler has that setting"
                )
        self.settings()

    @classmethod
    def from_config(
        cls, config: Mapping[str, object], scheduler: str | None = None
    ) -> NoiseSchedule:
        """Take over a checkpoint's settings; `scheduler` replaces the class that they name."""
        named = config.get("_class_name") if scheduler is None else scheduler
        settings = {name: value for name, value in config.items() if not name.startswith("_")}
        return cls(str(named), MappingProxyType(settings))

    @classmethod
    def read(cls, path: Path, scheduler: str | None = None) -> NoiseSchedule:
        """Read a `scheduler_config.json`.

        Raises:
            OSError: The file cannot be read.
            ValueError: It is not a JSON object, or not supported.
        """
        try:
            config = json.loads(path.read_bytes())  # with -Infinity, which stricter readers refuse
        except ValueError as error:
            raise ValueError(f"{path} cannot be read: {error}") from None
        if not isinstance(config, dict):
            raise ValueError(f"{path} is not a JSON object")
        return cls.from_config(config, scheduler)

    @property
    def is_flow(self) -> bool:
        """Whether the model predicts flow instead of noise, its sample or its velocity."""
        if self.scheduler in _MULTISTEP:
            return bool(self.config.get("use_flow_sigmas"))
        return self.scheduler in _FLOW

    def settings(self, scheduler: str | None = None) -> SchedulerSettings:
        """The settings of a scheduler, by its class or its short name; the checkpoint's by default.

        Raises:
            ValueError: There is none of that name, it does not fit the model, or it does not
                support one of the checkpoint's settings.
        """
        name = self.scheduler if scheduler is None else scheduler
        class_name, pinned = SHORT_NAMES.get(name, (name, {}))
        if class_name not in SCHEDULERS:
            raise ValueError(f"scheduler is {name!r}, but it must be one of: {self._names()}")
        if class_name not in self._fitting():
            predicted = "flow" if self.is_flow else "no flow"
            raise ValueError(
                f"scheduler is {name!r}, but the model predicts {predicted}, so it must be one of: "
                + self._names()
            )
        config = {**self.config, **self._translated(class_name), **pinned}
        return read_settings(SCHEDULERS[class_name], config, class_name)

    def stepper(
        self,
        num_inference_steps: int,
        *,
        scheduler: str | None = None,
        image_seq_len: int | None = None,
    ) -> Stepper:
        """Build the stepper of one request.

        Args:
            num_inference_steps: At least 1, at most what the schedule was trained or distilled for.
            scheduler: A class or a short name; None takes the checkpoint's.
            image_seq_len: Latent tokens of the picture, where the schedule depends on its size.

        Raises:
            ValueError: As `settings`, or the steps do not fit the schedule.
        """
        return self.settings(scheduler).stepper(num_inference_steps, image_seq_len)

    def _translated(self, class_name: str) -> dict[str, object]:
        """What a flow model's settings are called by a scheduler of the other kind."""
        if not self.is_flow or (class_name in _MULTISTEP) == (self.scheduler in _MULTISTEP):
            return {}
        if class_name not in _MULTISTEP:
            return {"shift": self.config.get("flow_shift", 1.0)}
        return {
            "use_flow_sigmas": True,
            "prediction_type": "flow_prediction",
            "flow_shift": self.config.get("shift", 1.0),
        }

    def _fitting(self) -> Set[str]:
        return _FLOW if self.is_flow else SCHEDULERS.keys() - (_FLOW - _MULTISTEP)

    def _names(self) -> str:
        return ", ".join(
            short
            for short, (class_name, pinned) in SHORT_NAMES.items()
            if class_name in self._fitting()
            and not (self.is_flow and pinned.get("use_karras_sigmas"))
        )
