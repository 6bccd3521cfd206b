"""Pictures with step caching: beside diffusers with the same reuse, and beside others."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.export.diffusion.pictures import (
    CLOSE,
    HEIGHT,
    WIDTH,
    Reference,
    difference,
    draw,
    make_request,
    open_engine,
)

IMAGE = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
MASK = np.zeros((HEIGHT, WIDTH), np.uint8)
MASK[10:30, 8:40] = 255


@pytest.fixture(scope="module")
def engine(image_engine):
    made = {}

    def get(name):
        if name not in made:
            made[name] = open_engine(image_engine(name))
        return made[name]

    yield get
    for opened in made.values():
        opened.close()


class Reuse:
    """DeepCache as hooks on a UNet of diffusers, which runs whole but forgets the deeper layers."""

    def __init__(self, unet, interval):
        self.interval, self.num_calls, self.features = interval, 0, None
        last = unet.up_blocks[-1].resnets
        # The features have the channels that the way down, of as many as conv_in, did not give.
        self.num_skipped = unet.conv_in.out_channels
        last[-2].register_forward_pre_hook(self.replace)

    def replace(self, module, arguments):
        joined, *others = arguments
        num_deep = joined.shape[1] - self.num_skipped
        if self.num_calls % self.interval == 0:
            self.features = joined[:, :num_deep]
        self.num_calls += 1
        return torch.cat([self.features, joined[:, num_deep:]], dim=1), *others


@pytest.mark.parametrize("cache_interval", [2, 3])
@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_a_picture_is_that_of_diffusers_with_the_same_reuse(
    engine, image_engine, pipeline, name, cache_interval
):
    request = make_request(
        image_engine(name), cache_interval=cache_interval, scheduler="euler", num_inference_steps=7
    )
    (picture,) = draw(engine(name), request)
    reference = Reference(pipeline(name), "euler")
    whole = reference.draw(request)
    assert difference(picture, whole) > 2 * CLOSE
    reuse = Reuse(reference.pipeline.unet, cache_interval)
    assert difference(picture, reference.draw(request)) <= CLOSE
    assert reuse.num_calls == 7


def test_every_kind_of_request_runs_beside_every_other_as_it_does_alone(engine, image_engine):
    """Within 1 of 255: kernels round differently by the number of rows."""
    folder, opened = image_engine("sd15"), engine("sd15")
    requests = [
        make_request(folder, 1, num_inference_steps=8, cache_interval=3),
        make_request(folder, 2, seed=5, num_inference_steps=6, scheduler="euler_a"),
        make_request(folder, 3, image=IMAGE, mask=MASK, strength=1.0, cache_interval=2),
        make_request(folder, 4, height=24, width=24, preview_steps=frozenset({1, 3})),
        make_request(folder, 5, image=IMAGE, strength=0.7, guidance_scale=1.0),
        make_request(folder, 6, num_inference_steps=8, cache_interval=3, scheduler="dpm++_2m"),
    ]
    start = opened.stats()
    alone = [draw(opened, request)[0] for request in requests]
    before = opened.stats()
    together = {}
    for request in requests:  # one joins at each step
        opened.add(request)
        together |= {o.image_id: o.picture for o in opened.step() if o.is_finished}
    while opened.has_work:
        together |= {o.image_id: o.picture for o in opened.step() if o.is_finished}
    stats = opened.stats()
    assert stats.num_shallow_steps > before.num_shallow_steps > start.num_shallow_steps
    assert stats.num_rows - before.num_rows == before.num_rows - start.num_rows
    assert stats.num_steps - before.num_steps < before.num_steps - start.num_steps
    for request, expected in zip(requests, alone, strict=True):
        assert difference(together[request.image_id], expected) <= 1


def test_cached_requests_of_one_rhythm_share_runs_and_abort_apart(engine, image_engine):
    folder, opened = image_engine("sdxl"), engine("sdxl")
    kept = make_request(folder, 1, num_inference_steps=7, cache_interval=3)
    (alone,) = draw(opened, kept)
    before = opened.stats()
    opened.add(kept)
    opened.add(make_request(folder, 2, seed=9, num_inference_steps=7, cache_interval=3))
    opened.step()
    opened.step()
    opened.abort(2)
    outputs = []
    while opened.has_work:
        outputs += opened.step()
    assert {output.image_id for output in outputs} == {1}
    stats = opened.stats()
    assert (stats.num_steps - before.num_steps, stats.num_rows - before.num_rows) == (7, 18)
    assert difference(outputs[-1].picture, alone) <= 1
