"""TensorRT's Python module for its names and signatures, with its libraries or without them.

The bindings alone (`tensorrt-cu13-bindings`, a megabyte) load once the nine functions that they
look for are there, so that calls can be held against them where TensorRT itself is not installed.
"""

from __future__ import annotations

import ctypes
import importlib
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

_LIBRARIES = ("libnvinfer.so.11", "libnvinfer_plugin.so.11", "libnvonnxparser.so.11")
_MINE = re.compile(r"Infer|Nv|Plugin")


class NotHere(Exception):
    """Its text says what is missing."""


def load_api(folder: Path) -> ModuleType:
    """The module `tensorrt`, or its bindings over libraries that are made in `folder`.

    Raises:
        NotHere: Neither can be loaded.
    """
    if find_spec("tensorrt") is not None:
        return importlib.import_module("tensorrt")
    spec = find_spec("tensorrt_bindings")
    if spec is None:
        raise NotHere("neither tensorrt nor tensorrt-cu13-bindings is installed")
    for tool in ("cc", "nm"):
        if shutil.which(tool) is None:
            raise NotHere(f"tensorrt is not installed, and its bindings alone need {tool}")
    (place,) = spec.submodule_search_locations
    command = ["nm", "-D", "--undefined-only", str(Path(place) / "tensorrt.so")]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = [line.split()[-1] for line in output.splitlines() if _MINE.search(line)]
    source = folder / "nothing.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in names))
    for library in _LIBRARIES:
        path = str(folder / library)
        command = ["cc", "-shared", "-fPIC", str(source), f"-Wl,-soname,{library}", "-o", path]
        subprocess.run(command, check=True)
        ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    return importlib.import_module("tensorrt_bindings")
