"""CUDA's libraries with kernels that do nothing, for ONNX Runtime's own CUDA provider.

On a machine without a GPU they let the provider itself say which nodes it has kernels for, which
inputs its kernels refuse, and whether a run can be recorded. Memory is the host's; what kernels
would compute stays zero. The functions that matter are in `cudart.c`; all others, whose names are
read from the provider, succeed and do nothing.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

_HERE = Path(__file__).parent
_PREFIXES = {  # in the order in which a name is looked for
    "libcudart.so.13": ("cuda", "__cuda"),
    "libcublasLt.so.13": ("cublasLt",),
    "libcublas.so.13": ("cublas",),
    "libcurand.so.10": ("curand",),
    "libcuda.so.1": ("cu",),
}
# Marks of compilers for GPUs, which CUDA's headers use and a compiler for the host does not know.
_HOST_DEFINES = """
#define __host__
#define __device_builtin__
#define __cudart_builtin__
#define __device_builtin_texture_type__
#define __device_builtin_surface_type__
#define __align__(n) __attribute__((aligned(n)))
#define __builtin_align__(n) __align__(n)
#define CUDARTAPI
#define CUDARTAPI_CDECL
#define CUDACB
"""
_CREATE = "int {name}(void **handle) {{ static int it; *handle = &it; return 0; }}\n"
_NOTHING = "int {name}(void) {{ return 0; }}\n"


def missing() -> str | None:
    """What keeps the libraries from being made here, as the end of a sentence."""
    for tool in ("cc", "nm"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    if not _provider().exists():
        return "the installed onnxruntime has no CUDA provider"
    if not (_headers() / "cuda_runtime_api.h").exists():
        return "CUDA's headers are not installed"
    return None


def build(folder: Path) -> None:
    """Compile all libraries into `folder`."""
    (folder / "crt").mkdir(parents=True)
    (folder / "crt" / "host_defines.h").write_text(_HOST_DEFINES)
    names = dict(_undefined_names())
    for library in _PREFIXES:
        _build(folder, library, names)


def load(folder: Path) -> ctypes.CDLL:
    """Load all before the provider looks for the real ones; returns CUDA's runtime."""
    loaded = [ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL) for name in _PREFIXES]
    return loaded[0]


def _build(folder: Path, library: str, names: dict[str, str]) -> None:
    mine = {name: version for name, version in names.items() if _library_of(name) == library}
    sources = [folder / f"{library}.c"]
    written = ""
    if library == "libcudart.so.13":
        sources.append(_HERE / "cudart.c")
        written = sources[-1].read_text()
    creates = {"cublasCreate_v2", "cublasLtCreate"}
    sources[0].write_text(
        "".join(
            (_CREATE if name in creates else _NOTHING).format(name=name)
            for name in mine
            if re.search(rf"\b{name}\(", written) is None
        )
    )
    command = ["cc", "-shared", "-fPIC", "-w", f"-I{folder}", f"-I{_headers()}"]
    command += [*map(str, sources), f"-Wl,-soname,{library}", "-o", str(folder / library)]
    for version in set(mine.values()) - {""}:
        script = folder / f"{library}.map"
        script.write_text(f"{version} {{ global: *; }};\n")
        command.append(f"-Wl,--version-script={script}")
    subprocess.run(command, check=True)


def _undefined_names() -> Iterator[tuple[str, str]]:
    """What the provider looks for in other libraries, with the version that it asks for."""
    command = ["nm", "-D", "--undefined-only", str(_provider())]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for line in output.splitlines():
        name, _, version = line.split()[-1].partition("@")
        if _library_of(name) is not None:
            yield name, version.strip("@")


def _library_of(name: str) -> str | None:
    return next(
        (library for library, prefixes in _PREFIXES.items() if name.startswith(prefixes)), None
    )


def _provider() -> Path:
    return _package("onnxruntime") / "capi" / "libonnxruntime_providers_cuda.so"


def _headers() -> Path:
    return _package("nvidia") / "cu13" / "include"


def _package(name: str) -> Path:
    spec = find_spec(name)
    places = spec.submodule_search_locations if spec is not None else None
    return Path(next(iter(places))) if places else Path("not-installed")
