"""TensorRT itself: found, of a version that we know, and quiet."""

from __future__ import annotations

import logging
from typing import Any

from engines.backends.cuda import Gpu
from engines.errors import EngineIncompatible
from engines.manifest import PlanDevice

logger = logging.getLogger(__name__)

MIN_MAJOR = 11  # plans are strongly typed and attention is a layer
_INSTALL = (
    "`pip install 'enginery[tensorrt]'`, whose libraries come from NVIDIA's own package index "
    "(docs/gpu.md)"
)


def load_tensorrt() -> Any:
    """The module `tensorrt`.

    Raises:
        EngineIncompatible: It is not installed, or too old.
    """
    try:
        import tensorrt
    except ImportError as error:
        raise EngineIncompatible(
            f"the engine is for TensorRT, which is not installed ({error}): {_INSTALL}"
        ) from None
    major = int(tensorrt.__version__.split(".")[0])
    if major < MIN_MAJOR:
        raise EngineIncompatible(
            f"the engine is for TensorRT {MIN_MAJOR} or newer, but {tensorrt.__version__} is "
            f"installed: {_INSTALL}"
        )
    return tensorrt


def new_logger(tensorrt: Any) -> Any:
    """A logger that passes warnings and errors on to Python's."""

    class Logger(tensorrt.ILogger):  # type: ignore[misc]  # the base is not known here
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            levels = {
                tensorrt.ILogger.INTERNAL_ERROR: logging.ERROR,
                tensorrt.ILogger.ERROR: logging.ERROR,
                tensorrt.ILogger.WARNING: logging.WARNING,
            }
            logger.log(levels.get(severity, logging.DEBUG), "TensorRT: %s", message)

    return Logger()


def plan_device(gpu: Gpu) -> PlanDevice:
    """What plans that are built here have to be run on and with."""
    version = load_tensorrt().__version__
    return PlanDevice(gpu=gpu.name, compute_capability=gpu.compute_capability, tensorrt=version)
