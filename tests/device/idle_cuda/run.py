"""`python -m tests.device.idle_cuda.run LIBRARIES ENGINE...`: engines on a GPU that does nothing.

Prints a line of JSON for each engine: the tokens that it answered, and what was recorded of it.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path

import onnxruntime as ort

from engines.llm.sampling_params import SamplingParams
from engines.llm.sequence import Sequence
from engines.load import EngineOptions, load_llm_engine
from engines.load_image import ImageEngineOptions, load_image_engine
from engines.manifest import read_manifest
from engines.store import EngineFolder
from tests.device.idle_cuda import load
from tests.gpu.host_cuda import HostCuda

# Every way to sample fetches other rows of logits.
WAYS = (
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"temperature": 0.8, "top_k": 20},
    {"temperature": 0.7, "presence_penalty": 1.0},
    {"temperature": 0.0, "num_logprobs": 5},
)
NUM_TOKENS = 12


def answer(folder: EngineFolder) -> int:
    """Prompts of 3 to 163 tokens together; how many tokens came back."""
    options = EngineOptions(max_num_seqs=8, kv_cache_memory=300 << 20)
    engine = load_llm_engine(folder, options)
    for index, way in enumerate(WAYS):
        prompt = [5 + place % 50 for place in range(40 * index + 3)]
        sampling = SamplingParams(max_tokens=NUM_TOKENS, seed=index, ignore_eos=True, **way)
        engine.add(Sequence.from_prompt(index, prompt, sampling))
    count = 0
    while engine.has_work:
        count += len(engine.step())
    engine.close()
    return count


def main(libraries: Path, engines: list[Path]) -> None:
    cudart = load(libraries)
    ort.preload_dlls = lambda: None  # cuDNN would look for a GPU; language models do without it
    sys.modules.update(HostCuda(total_memory=4 << 30).modules())
    for path in engines:
        folder = EngineFolder(path, read_manifest(path))
        before = {name: _count(cudart, name) for name in ("num_recorded", "num_replayed")}
        if folder.manifest.chat is not None:
            found = {"tokens": answer(folder)}
        else:  # its convolutions are cuDNN's, which is not here: loading it is as far as it goes
            load_image_engine(folder, ImageEngineOptions()).close()
            found = {"loaded": True}
        found |= {name: _count(cudart, name) - count for name, count in before.items()}
        print(json.dumps(found), flush=True)


def _count(cudart: ctypes.CDLL, name: str) -> int:
    return ctypes.c_long.in_dll(cudart, name).value


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(argument) for argument in sys.argv[2:]])
