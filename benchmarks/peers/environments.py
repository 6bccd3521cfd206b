"""Sets up what peers need, from package registries: environments of Python, and llama.cpp."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.errors import PeerFailed

Command = list[str]
_LLAMACPP_TOOLS = ("llama-server", "llama-bench", "llama-batched-bench", "llama-quantize")


class Setup(Protocol):
    """Something that a peer needs, below the folder where peers are set up."""

    @property
    def is_ready(self) -> bool: ...

    def missing(self) -> str | None:
        """What is not there, as the end of a sentence; None if all is."""
        ...

    def commands(self) -> list[Command]:
        """What to run, in order, to make it ready; safe to run again."""
        ...


@dataclass(frozen=True, slots=True)
class PythonEnvironment:
    """A virtual environment with packages; ready once all of them were installed."""

    folder: Path
    requirements: tuple[str, ...]
    unwanted: tuple[str, ...] = ()  # packages that come along and break others

    @property
    def python(self) -> Path:
        return self.folder.absolute() / "bin" / "python"

    @property
    def is_ready(self) -> bool:
        return (self.folder / "installed").exists()

    def missing(self) -> str | None:
        return None if self.is_ready else f"{self.folder} is not set up"

    def commands(self) -> list[Command]:
        install = [str(self.python), "-m", "pip", "install", "--quiet", *self.requirements]
        remove = [str(self.python), "-m", "pip", "uninstall", "--quiet", "--yes", *self.unwanted]
        return [
            [sys.executable, "-m", "venv", str(self.folder)],
            install,
            *([remove] if self.unwanted else []),
            ["touch", str(self.folder / "installed")],
        ]


@dataclass(frozen=True, slots=True)
class LlamaCppBuild:
    """llama.cpp's tools, compiled for this machine, and the environment of its converter."""

    folder: Path  # of llama-cpp-python's sources
    converter: PythonEnvironment

    @property
    def source(self) -> Path:
        return self.folder.absolute() / "vendor" / "llama.cpp"

    @property
    def is_ready(self) -> bool:
        return self.missing() is None

    def missing(self) -> str | None:
        for tool in _LLAMACPP_TOOLS:
            path = self.source / "build" / "bin" / tool
            if not path.exists():
                return f"{path} does not exist"
        return self.converter.missing()

    def commands(self) -> list[Command]:
        sdist = self.folder.with_name("llamacpp-sdist")
        download = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
            *("--no-binary", "llama-cpp-python", "--dest", str(sdist), "llama-cpp-python"),
        ]
        unpack = [
            *(sys.executable, "-m", "benchmarks.peers.environments"),
            *(str(sdist), str(self.folder)),
        ]
        fetch = [] if self.source.exists() else [download, unpack]
        build = str(self.source / "build")
        off = ("TESTS", "EXAMPLES", "APP", "UI")
        configure = [
            *("cmake", "-S", str(self.source), "-B", build, "-DCMAKE_BUILD_TYPE=Release"),
            *("-DBUILD_SHARED_LIBS=OFF", "-DGGML_NATIVE=ON", "-DLLAMA_OPENSSL=OFF"),
            # Its AMX code ended with SIGILL (at `tilezero`) on a virtual machine with AMX; all
            # other extensions of this processor are used.
            *("-DCMAKE_C_FLAGS=-U__AMX_INT8__", "-DCMAKE_CXX_FLAGS=-U__AMX_INT8__"),
            *(f"-DLLAMA_BUILD_{part}=OFF" for part in off),
            *("-DLLAMA_BUILD_TOOLS=ON", "-DLLAMA_BUILD_SERVER=ON", "-DLLAMA_USE_PREBUILT_UI=OFF"),
        ]
        compile_all = ["cmake", "--build", build, "--parallel", "2", "--target", *_LLAMACPP_TOOLS]
        return [*fetch, configure, compile_all, *self.converter.commands()]


def llamacpp_setup(work_dir: Path, torch: str) -> LlamaCppBuild:
    """llama.cpp below `work_dir`."""
    packages = (*shlex.split(torch), "transformers", "sentencepiece", "protobuf")
    converter = PythonEnvironment(work_dir / "llamacpp-converter", packages)
    return LlamaCppBuild(work_dir / "llamacpp", converter)


def make_ready(setup: Setup, environment: Mapping[str, str]) -> None:
    """Run the commands of a set-up, with their output where ours goes.

    Raises:
        PeerFailed: One cannot be started or failed.
    """
    for command in setup.commands():
        try:
            status = subprocess.run(command, env=environment, check=False).returncode
        except OSError as error:
            raise PeerFailed(f"`{' '.join(command)}` cannot be started: {error}") from None
        if status != 0:
            raise PeerFailed(f"`{' '.join(command)}` ended with status {status}")


def unpack(sdist: Path, folder: Path) -> None:
    """Unpack the only archive of a folder without its outermost folder."""
    (archive,) = sdist.glob("*.tar.gz")
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.unpack_archive(archive, partial, filter="data")
    (outermost,) = partial.iterdir()
    outermost.rename(folder)
    partial.rmdir()


if __name__ == "__main__":
    unpack(Path(sys.argv[1]), Path(sys.argv[2]))
