"""`--optimize`: which precision it stands for, and engines with a graph for each phase."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from engines.backends.ort import OrtCpuRunner
from engines.llm.runner import Batch
from engines.manifest import read_manifest
from export.answers import greedy_answers
from export.command import export_engine
from export.config import ExportConfig
from export.errors import VerificationFailed
from export.report import QuietProgress
from export.verification import check_bars
from tests.export.test_parity import random_ids
from tests.export.test_verify import report_of  # noqa: F401  (a fixture)

OpenRunner = Callable[[str], OrtCpuRunner]


@pytest.fixture(scope="module")
def engines(checkpoint, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of an engine for each value of `--optimize`."""
    folders = {}
    for optimize in ("throughput", "latency", "memory"):
        config = ExportConfig(
            checkpoint_path=str(checkpoint("qwen2.5")),
            output=tmp_path_factory.mktemp(optimize),
            name="tiny",
            optimize=optimize,
            # As the answers of "latency" have them; "memory" would choose for each node.
            int4_block_size=128 if optimize == "memory" else None,
            verify=False,
        )
        export_engine(config, QuietProgress())
        folders[optimize] = config.output / "tiny"
    return folders


@pytest.fixture
def open_runner(engines: dict[str, Path]) -> Iterator[OpenRunner]:
    opened: list[OrtCpuRunner] = []

    def open_runner(optimize: str) -> OrtCpuRunner:
        spec = read_manifest(engines[optimize]).chat
        assert spec is not None
        opened.append(OrtCpuRunner(engines[optimize] / spec.graph, spec, 4, 128, 1))
        return opened[-1]

    yield open_runner
    for runner in opened:
        runner.close()


def logits(runner: OrtCpuRunner, slot: int, token_ids: list[int], past: int) -> np.ndarray:
    last = np.array([len(token_ids) - 1])
    batch = Batch(slot, np.array([token_ids]), np.array([past], np.int32), last)
    return runner.run(batch).logits(0).copy()


def test_each_goal_stands_for_its_precisions(engines):
    found = {goal: read_manifest(folder) for goal, folder in engines.items()}
    precisions = {
        goal: (manifest.precision, manifest.chat.decode_precision)
        for goal, manifest in found.items()
    }
    assert precisions == {
        "throughput": ("int8", None),
        "latency": ("int8", "int4"),
        "memory": ("int4", None),
    }
    assert found["latency"].chat.decode_graph in found["latency"].files


def test_both_graphs_share_what_they_have_alike(engines):
    sizes = {goal: (folder / "model.onnx.data").stat().st_size for goal, folder in engines.items()}
    embedding = 512 * 64  # in int8, read by both
    assert sizes["latency"] <= sizes["throughput"] + sizes["memory"] - embedding


def test_prompts_are_those_of_int8_and_answers_those_of_int4_to_the_bit(open_runner):
    latency, throughput, memory = map(open_runner, ("latency", "throughput", "memory"))
    prompt = random_ids(30)
    assert np.array_equal(logits(latency, 0, prompt, 0), logits(throughput, 0, prompt, 0))
    for ours, theirs in zip(throughput._arrays, memory._arrays, strict=True):
        theirs.array[:] = ours.array  # the same cache
    step = logits(latency, 0, [7], len(prompt))
    assert np.array_equal(step, logits(memory, 0, [7], len(prompt)))
    assert not np.array_equal(step, logits(throughput, 0, [7], len(prompt)))


def test_a_verification_looks_at_both_graphs(engines):
    prompts = [random_ids(20, seed) for seed in range(2)]
    found = {}
    for goal, folder in engines.items():
        spec = read_manifest(folder).chat
        assert spec is not None
        found[goal] = greedy_answers(folder, spec, prompts)
    for latency, throughput in zip(found["latency"], found["throughput"], strict=True):
        assert np.array_equal(latency.logits[0], throughput.logits[0])
        assert not np.array_equal(latency.logits[1], throughput.logits[1])


def test_a_prompt_of_one_token_meets_the_same_graph_in_every_slot(open_runner):
    runner = open_runner("latency")
    assert np.array_equal(logits(runner, 0, [9], 0), logits(runner, 2, [9], 0))


def test_an_engine_that_answers_in_int4_is_held_to_the_bars_of_int4(report_of):  # noqa: F811
    import msgspec

    manifest, result = report_of(0.92, 0.05, "int8")
    with pytest.raises(VerificationFailed, match="but int8 has to reach"):
        check_bars(manifest, result)
    chat = msgspec.structs.replace(manifest.chat, decode_precision="int4")
    check_bars(msgspec.structs.replace(manifest, chat=chat), result)


def test_a_goal_and_a_precision_are_refused_together():
    with pytest.raises(ValueError, match="--optimize latency and --precision int8 both choose"):
        ExportConfig(checkpoint_path="any", optimize="latency", precision="int8")


def test_a_goal_is_refused_for_a_gpu():
    with pytest.raises(ValueError, match="--optimize memory is for ort-cpu, but --target is cuda"):
        ExportConfig(checkpoint_path="any", optimize="memory", target="cuda")
