"""Stand-ins for peers that are not installed: small programs with the same command lines."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.catalogue import Command, LlamaCpp
from benchmarks.peers.environments import llamacpp_setup
from benchmarks.peers.workload import Precision, Stage, Workload

GENAI_MODULE = '''
"""onnxruntime_genai, as far as the adapter calls it; refuses what the real one would refuse."""
import json

__version__ = "9.9"

class Config:
    def __init__(self, path):
        self.path = path
    def overlay(self, text):
        options = json.loads(text)["model"]["decoder"]["session_options"]
        assert options == {"intra_op_num_threads": 3}

class Model:
    def __init__(self, config):
        assert open(config.path + "/genai_config.json").read() == "{}"

class GeneratorParams:
    def __init__(self, model):
        self.options = {}
    def set_search_options(self, **options):
        self.options.update(options)

class Generator:
    def __init__(self, model, params):
        self.options, self.length = params.options, 0
    def append_tokens(self, tokens):
        assert tokens.dtype.name == "int32"
        assert tokens.shape[0] == self.options["batch_size"]
        self.length += tokens.shape[1]
    def generate_next_token(self):
        assert not self.is_done()
        self.length += 1
    def is_done(self):
        return self.length >= self.options["max_length"]
'''

_CONVERT = """
import sys, pathlib
from conversion.base import TextModel

def main():
    checkpoint, out = sys.argv[1], sys.argv[sys.argv.index("--outfile") + 1]
    assert pathlib.Path(checkpoint, "config.json").exists()
    assert TextModel().get_vocab_base_pre("tokenizer") == "qwen2"
    assert TextModel.no_mtp
    pathlib.Path(out).write_text("bf16")
"""
_CONVERSION = """
class ModelBase:
    no_mtp = False

class TextModel(ModelBase):
    def get_vocab_base_pre(self, tokenizer):
        raise NotImplementedError("a hash that is in no list")
"""
_SERVER = """
import sys
from tests.benchmarks.fake_server import serve_until_killed
serve_until_killed(int(sys.argv[sys.argv.index("--port") + 1]))
"""
_QUANTIZE = """
import sys, pathlib
source, target, kind = sys.argv[1:]
assert pathlib.Path(source).read_text() == "bf16"
pathlib.Path(target).write_text(kind)
"""
_BENCH = """
import sys, json, pathlib
arguments = sys.argv[1:]
option = lambda name: arguments[arguments.index(name) + 1]
assert option("-n") == "0" and option("-o") == "json"
kind = pathlib.Path(option("-m")).read_text()
speed = {"Q8_0": 200.0, "Q4_0": 100.0}[kind]
samples = [speed + number for number in range(int(option("-r")))]
print(json.dumps([{"build_commit": "abc123", "samples_ts": samples}]))
"""
_BATCHED_BENCH = """
import sys, json
arguments = sys.argv[1:]
option = lambda name: arguments[arguments.index(name) + 1]
row = int(option("-npp")) + int(option("-ntg"))
print("some words before")
for number, streams in enumerate(map(int, option("-npl").split(","))):
    assert streams * row <= int(option("-c"))
    print(json.dumps({"pl": streams, "speed_tg": 10.0 * streams + number}))
"""


def make_llamacpp(work_dir: Path) -> LlamaCpp:
    """llama.cpp as `peers-setup` leaves it, in small programs."""
    source = work_dir / "llamacpp" / "vendor" / "llama.cpp"
    binaries = source / "build" / "bin"
    binaries.mkdir(parents=True)
    (source / "conversion").mkdir()
    (source / "conversion" / "__init__.py").touch()
    (source / "conversion" / "base.py").write_text(_CONVERSION)
    (source / "convert_hf_to_gguf.py").write_text(_CONVERT)
    tools = {
        "llama-quantize": _QUANTIZE,
        "llama-bench": _BENCH,
        "llama-batched-bench": _BATCHED_BENCH,
        "llama-server": _SERVER,
    }
    for name, program in tools.items():
        path = binaries / name
        path.write_text(f"#!{sys.executable}\n{program}")
        path.chmod(0o755)
    make_environment(work_dir / "llamacpp-converter")
    return LlamaCpp(llamacpp_setup(work_dir, "torch"))


def make_environment(folder: Path) -> None:
    """A Python that has what ours has."""
    (folder / "bin").mkdir(parents=True)
    python = folder / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (folder / "installed").touch()


@dataclass(frozen=True)
class ScriptedPeer:
    """A peer whose build and run are Python programs."""

    build_source: str = "import pathlib; pathlib.Path(TARGET, 'model').touch()"
    run_source: str = "print('nothing')"
    name: str = "Scripted"
    precisions: tuple[Precision, ...] = ("int8", "int4")
    setup: None = None

    def label(self, precision: Precision) -> str:
        return f"{self.name} {precision}"

    def build(self, checkpoint: Path, target: Path, precision: Precision) -> list[Command]:
        return [[sys.executable, "-c", f"TARGET = {str(target)!r}\n{self.build_source}"]]

    def run(
        self, model_dir: Path, checkpoint: Path, stage: Stage, workload: Workload
    ) -> Command | None:
        return [sys.executable, "-c", self.run_source]

    def serve(self, model_dir: Path, port: int, workload: Workload) -> Command | None:
        return None
