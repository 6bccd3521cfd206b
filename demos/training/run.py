"""What every training script of a demo shares: a time budget, a state on disk, kept memory."""

from __future__ import annotations

import ctypes
import logging
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, Protocol

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

logger = logging.getLogger("demos.training")

SAVE_EVERY_S = 180
LOG_EVERY_STEPS = 50


class Stateful(Protocol):
    """A model, an optimizer, or whatever else a run needs to go on."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Any) -> Any: ...


@dataclass
class Progress:
    """How far a run is, restarts included; a run may add fields."""

    step: int = 0
    elapsed_s: float = 0.0

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        vars(self).update(state_dict)


class TrainingRun:
    """A run that can be stopped and goes on from `path` when it is started again.

    Args:
        path: The file of the state; loaded at once where it exists.
        budget_s: Seconds of training, restarts included.
        progress: Counted up by `train`.
        parts: Everything else that the state has, by name.
    """

    def __init__(
        self, path: Path, budget_s: float, progress: Progress, parts: Mapping[str, Stateful]
    ) -> None:
        self.path = path
        self.budget_s = budget_s
        self.progress = progress
        self._parts = {**parts, "progress": progress}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            state = torch.load(path, weights_only=True)
            for name, part in self._parts.items():
                part.load_state_dict(state[name])

    @property
    def done(self) -> float:
        """The part of the time that is used up."""
        return self.progress.elapsed_s / self.budget_s

    def save(self) -> None:
        """Replace the state on disk in one move, so that a killed save leaves the last one."""
        partial = self.path.with_suffix(".partial")
        torch.save({name: part.state_dict() for name, part in self._parts.items()}, partial)
        partial.replace(self.path)

    def train(self, step: Callable[[], float], stop: Event) -> None:
        """Call `step`, which returns its loss, until the time is up or `stop` is set."""
        last = last_save = time.monotonic()
        losses: list[float] = []
        while self.done < 1 and not stop.is_set():
            losses.append(step())
            self.progress.step += 1
            now = time.monotonic()
            self.progress.elapsed_s += now - last
            last = now
            if self.progress.step % LOG_EVERY_STEPS == 0:
                self._log(sum(losses) / len(losses))
                losses.clear()
            if now - last_save > SAVE_EVERY_S:
                self.save()
                last_save = now
        self.save()

    def _log(self, loss: float) -> None:
        minutes = self.progress.elapsed_s / 60
        logger.info("step %d, %.1f min, loss %.5f", self.progress.step, minutes, loss)


def learning_rate(peak: float, step: int, warmup_steps: int, done: float) -> float:
    """Rises over the first steps and falls to almost nothing as the time runs out."""
    return peak * min(1.0, (step + 1) / warmup_steps) * max(1 - done, 0.01)


def moving_average(model: torch.nn.Module, decay: float) -> AveragedModel:
    """A copy of a model whose weights follow the model's at every `update_parameters`."""
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)


def stop_on_sigterm() -> Event:
    """Set when the process is asked to end, so that it saves first."""
    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    return stop


def keep_freed_memory() -> None:
    """Tell glibc to keep big freed blocks: page faults were a quarter of the time."""
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        for parameter, size in (
            (mmap_threshold, 2**31 - 1),
            (trim_threshold, 2**31 - 1),
            (top_pad, 2**26),
        ):
            libc.mallopt(parameter, size)
