"""Image engines on a GPU of host memory: the CPU engine's pictures, and who owns what memory."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from engines.backends.cuda import Stream
from engines.backends.gpu_image import MAX_RECORDED, GpuImageRunner
from engines.backends.ort_gpu_session import OrtGpuSession
from engines.backends.tensorrt_image_plan import MAX_ROWS, image_profile, plan_name
from engines.errors import EngineIncompatible
from engines.image.engine import ImageEngine
from engines.image.runner import DenoiseBatch
from engines.image.scheduler import ImageSchedulerConfig
from engines.image.schedulers.schedule import NoiseSchedule
from engines.load_image import ImageEngineOptions, load_image_engine
from engines.manifest import read_manifest, write_manifest
from engines.store import EngineFolder, check_files
from export.diffusion.build import ImageBuildOptions, build_image_engine
from export.diffusion.checkpoint import open_diffusion_checkpoint
from export.diffusion.engine import plan_image_engine
from export.report import QuietProgress
from tests.export.diffusion.pictures import draw, make_request, open_engine
from tests.export.diffusion.qwen_image.tiny import make_qwen_image
from tests.export.diffusion.tiny_pipelines import PIPELINES

MAKERS = PIPELINES | {"qwen-image": make_qwen_image}
CLOSE = 1  # of 255
OPTIONS = ImageEngineOptions(num_threads=1)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """`compiled("sd15", "cuda")`: the folder of an engine in fp32 that is not to be changed."""
    made = {}

    def make(name, target="ort-cpu"):
        if name not in made:
            made[name] = MAKERS[name](tmp_path_factory.mktemp("pipelines") / name)
        if (name, target) not in made:
            folder = tmp_path_factory.mktemp("engines") / f"{name}-{target}"
            folder.mkdir()
            plan = plan_image_engine(open_diffusion_checkpoint(made[name], name), name)
            options = ImageBuildOptions(precision="fp32", calibration_prompts=(), target=target)
            write_manifest(build_image_engine(plan, options, folder, QuietProgress()), folder)
            made[name, target] = folder
        return made[name, target]

    return make


def reload(folder):
    return EngineFolder(folder, read_manifest(folder))


def on_host(folder):
    """The engine for CUDA, its graphs by the CPU provider on raw addresses."""
    spec, stream = read_manifest(folder).image, Stream()

    def open_session(graph):
        return OrtGpuSession(folder / graph, 0, stream.handle, provider="CPUExecutionProvider")

    runner = GpuImageRunner(open_session, stream, spec)
    schedule = NoiseSchedule.read(folder / spec.scheduler)
    return ImageEngine(runner, spec, schedule, ImageSchedulerConfig(), "host")


def requests(folder):
    """Two that run together, of different size later on, and one that edits a picture."""
    size = {"height": 32, "width": 48}  # at most what plans take
    source = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    return [
        make_request(folder, 0, num_inference_steps=4, **size),
        make_request(folder, 1, num_inference_steps=6, seed=5, negative="blurred photo", **size),
        make_request(folder, 2, num_inference_steps=4, height=24, width=32),
        make_request(folder, 3, num_inference_steps=4, image=source, strength=0.8, **size),
    ]


def assert_same_pictures(engine, folder, cpu_folder):
    cpu = open_engine(cpu_folder)
    expected = draw(cpu, *requests(cpu_folder))
    cpu.close()
    found = draw(engine, *requests(folder))
    for picture, other in zip(found, expected, strict=True):
        assert other.std() > 10
        assert np.abs(picture.astype(int) - other).max() <= CLOSE


@pytest.mark.parametrize("name", ["sd15", "sdxl", "qwen-image"])
def test_the_graphs_for_cuda_draw_what_the_cpu_engine_draws(host_cuda, compiled, name):
    engine = on_host(compiled(name, "cuda"))
    assert_same_pictures(engine, compiled(name, "cuda"), compiled(name))
    engine.close()


@pytest.mark.parametrize("name", ["sd15", "sd3", "qwen-image"])
def test_plans_draw_what_the_cpu_engine_draws(host_tensorrt, compiled, tmp_path, name):
    folder = shutil.copytree(compiled(name, "tensorrt"), tmp_path / name)
    engine = load_image_engine(reload(folder), ImageEngineOptions(num_threads=1, rebuild=True))
    assert engine.device == "cuda:0"
    assert_same_pictures(engine, folder, compiled(name))
    assert host_tensorrt.num_launches >= 3, "steps of the same shape are replayed"
    engine.close()


def test_plans_are_built_once_and_are_files_of_the_engine(host_tensorrt, compiled, tmp_path):
    folder = shutil.copytree(compiled("sd15", "tensorrt"), tmp_path / "engine")
    with pytest.raises(EngineIncompatible, match=r"has no plan yet: .* with --rebuild"):
        load_image_engine(reload(folder), OPTIONS)
    load_image_engine(reload(folder), ImageEngineOptions(num_threads=1, rebuild=True)).close()
    built = reload(folder)
    check_files(built)
    plans = {plan_name(graph) for graph in built.manifest.image.graphs}
    assert {"unet.plan", "unet_shallow.plan", "vae_decoder.plan"} <= plans
    assert plans <= built.manifest.files.keys()
    before = (folder / "unet.plan").stat().st_mtime_ns
    load_image_engine(built, ImageEngineOptions(num_threads=1, rebuild=True)).close()
    assert (folder / "unet.plan").stat().st_mtime_ns == before


@pytest.mark.parametrize("name", ["sd15", "sdxl", "sd3", "flux-dev", "qwen-image"])
def test_profiles_take_the_smallest_and_the_largest_picture(compiled, name):
    spec = read_manifest(compiled(name, "tensorrt")).image
    profile = image_profile(spec, spec.graphs[spec.denoiser])
    least, usual, largest = profile["sample"]
    scale, channels = spec.latent_scale, spec.latent_channels
    patch = spec.size_multiple // scale
    assert least == (1, channels, patch, patch)
    assert usual == (2, channels, spec.default_height // scale, spec.default_width // scale)
    assert largest == (MAX_ROWS, channels, spec.max_side // scale, spec.max_side // scale)
    tokens = profile["encoder_hidden_states"]
    assert tokens[1] == (2, *tokens[2][1:])
    decoder = image_profile(spec, spec.graphs[spec.vae_decoder])
    assert decoder["latents"][2][2:] == largest[2:]


def test_a_picture_beyond_the_plans_is_refused_beforehand(compiled):
    spec = read_manifest(compiled("sd15", "tensorrt")).image
    assert spec.max_side == 3 * spec.default_width // 2
    assert read_manifest(compiled("sd15")).image.max_side is None


def test_shapes_beyond_those_that_are_recorded_share_one_place(host_cuda, compiled):
    engine = on_host(compiled("sd15", "cuda"))
    engine.add(make_request(compiled("sd15", "cuda")))
    (denoising,) = engine.scheduler.schedule()
    denoising.prepare(engine.runner)
    whole = denoising.model_input()

    def run(width):
        batch = DenoiseBatch(
            np.ascontiguousarray(whole[..., :width]),
            np.full(2, denoising.timestep, np.float32),
            denoising.conditioning,
        )
        return engine.runner.denoise(batch)

    widths = range(4, 4 + 2 * (MAX_RECORDED + 3), 2)
    first = [run(width) for width in widths]
    used = host_cuda.used
    again = [run(width) for width in widths]
    assert host_cuda.used <= used
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one, other)
    engine.close()


def test_memory_that_runs_out_while_loading_is_given_back(host_cuda, compiled):
    def open_session(graph):
        if graph.startswith("vae"):
            raise EngineIncompatible("no memory is left")
        return OrtGpuSession(folder / graph, 0, 0, provider="CPUExecutionProvider")

    folder = compiled("sd15", "cuda")
    with pytest.raises(EngineIncompatible, match="no memory is left"):
        GpuImageRunner(open_session, Stream(), read_manifest(folder).image)
