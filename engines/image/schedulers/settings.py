"""Settings of noise schedulers: the groups that they share, and how a checkpoint's are read.

A scheduler's settings are one frozen dataclass whose fields are named as in `scheduler_config.json`
and whose types say what is supported. A field may be a group: its own fields are then read from the
same flat file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from types import NoneType, UnionType
from typing import Any, Literal, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

from engines.image.schedulers.stepper import Stepper

TimestepSpacing = Literal["leading", "trailing", "linspace"]
FinalSigma = Literal["zero", "sigma_min"]
SettingsT = TypeVar("SettingsT")


class SchedulerSettings(Protocol):
    """What the table of schedulers holds: the settings of one, at their defaults."""

    def stepper(self, num_inference_steps: int, image_seq_len: int | None = None) -> Stepper:
        """Build the stepper of one request; `image_seq_len` is its number of latent tokens.

        Raises:
            ValueError: The number of steps does not fit the settings.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Betas:
    """The variances that the model was trained with.

    Raises:
        ValueError: A field is out of its range; the message names field, value and range.
    """

    num_train_timesteps: int = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    trained_betas: tuple[float, ...] | None = None
    rescale_betas_zero_snr: bool = False

    def __post_init__(self) -> None:
        check_positive("num_train_timesteps", self.num_train_timesteps)
        betas = {"beta_start": self.beta_start, "beta_end": self.beta_end}
        trained = self.trained_betas or ()
        betas |= {f"trained_betas[{index}]": beta for index, beta in enumerate(trained)}
        for name, beta in betas.items():
            if not 0 < beta < 1:
                raise ValueError(f"{name} is {beta}, but it must be above 0 and below 1")
        if trained and len(trained) != self.num_train_timesteps:
            raise ValueError(
                f"trained_betas has {len(trained)} values, but num_train_timesteps is "
                f"{self.num_train_timesteps}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SigmaSpacing:
    """How the noise levels of the steps are spread, where not by the timesteps.

    Raises:
        ValueError: Two of them are asked for at once, or the bounds are not in order.
    """

    use_karras_sigmas: bool = False
    use_exponential_sigmas: bool = False
    use_beta_sigmas: Literal[False] = False
    sigma_min: float | None = None
    sigma_max: float | None = None

    def __post_init__(self) -> None:
        if self.use_karras_sigmas and self.use_exponential_sigmas:
            raise ValueError(
                "use_karras_sigmas and use_exponential_sigmas are both True, but only one can be"
            )
        for name, sigma in (("sigma_min", self.sigma_min), ("sigma_max", self.sigma_max)):
            if sigma is not None:
                check_positive(name, sigma)
        low, high = self.sigma_min, self.sigma_max
        if low is not None and high is not None and low >= high:
            raise ValueError(f"sigma_min is {low}, but it must be below sigma_max = {high}")

    @property
    def is_spread(self) -> bool:
        """Whether the levels are spread at all."""
        return self.use_karras_sigmas or self.use_exponential_sigmas


def check_positive(name: str, value: float) -> None:
    """Refuse a setting that is not above 0 or not finite."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name} is {value}, but it must be above 0")


def setting_names(defaults: object) -> Iterator[str]:
    """The names that a scheduler's settings have in `scheduler_config.json`."""
    for field in fields(defaults):  # type: ignore[arg-type]
        value = getattr(defaults, field.name)
        if is_dataclass(value):
            yield from setting_names(value)
        else:
            yield field.name


def read_settings(defaults: SettingsT, config: Mapping[str, object], owner: str) -> SettingsT:
    """Return `defaults` with what `config` sets; names that `defaults` lacks are left alone.

    Raises:
        ValueError: A value is not supported by `owner`, the scheduler that the message names.
    """
    hints = get_type_hints(type(defaults))
    changes: dict[str, Any] = {}
    for field in fields(defaults):  # type: ignore[arg-type]
        value = getattr(defaults, field.name)
        if is_dataclass(value):
            changes[field.name] = read_settings(value, config, owner)
        elif field.name in config:
            changes[field.name] = _read(field.name, config[field.name], hints[field.name], owner)
    return replace(defaults, **changes)  # type: ignore[type-var]


def _read(name: str, value: object, hint: Any, owner: str) -> object:
    arms = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if value is None and bool in arms:
        return False  # older files write null for a switch that is off
    if isinstance(value, list):
        value = tuple(value)
    if not any(_fits(value, arm) for arm in arms):
        supported = " or ".join(_describe(arm) for arm in arms)
        raise ValueError(f"{name} is {value!r}, but {owner} supports {supported}")
    return value


def _fits(value: object, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return any(value == arg and type(value) is type(arg) for arg in get_args(hint))
    if get_origin(hint) is tuple:
        item = get_args(hint)[0]
        return isinstance(value, tuple) and all(_fits(entry, item) for entry in value)
    if hint is float:  # a whole number is a number; true and false are not
        return type(value) in (int, float) and value == value
    return type(value) is hint


def _describe(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(repr(arg) for arg in get_args(hint))
    if get_origin(hint) is tuple:
        return "a list of numbers"
    names = {bool: "True or False", int: "a whole number", float: "a number", NoneType: "None"}
    return names[hint]
