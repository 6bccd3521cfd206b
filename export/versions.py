"""What an engine was built with."""

from __future__ import annotations

import platform
from importlib import metadata

from engines import __version__


def built_with() -> dict[str, str]:
    """The versions that the manifest records."""
    versions = {"enginery": __version__, "python": platform.python_version()}
    for package in ("onnx-ir", "numpy", "onnxruntime"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions
