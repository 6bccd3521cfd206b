"""The shallow UNet of step caching: the whole one with the deeper layers' work already done."""

from __future__ import annotations

import onnx
import pytest
import torch
from onnx.external_data_helper import ExternalDataInfo

from tests.export.diffusion.graphs import CompiledGraph, assert_close, compile_module
from tests.export.diffusion.test_unet import SMALL, UNETS, Int8Matmuls, inputs_for, make_unet


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    made = {}

    def get(name):
        if name not in made:
            unet, folder = make_unet(**UNETS[name]), tmp_path_factory.mktemp(name)
            whole = compile_module(unet, folder, "unet")
            made[name] = unet, whole, CompiledGraph(folder / "unet_shallow.onnx"), folder
        return made[name]

    return get


@pytest.mark.parametrize("name", UNETS)
def test_with_the_features_of_the_same_time_it_is_the_whole_unet(compiled, name):
    unet, whole, shallow, _ = compiled(name)
    for shape in [(1, 8, 8, 7), (3, 6, 10, 5)]:
        inputs = inputs_for(unet, *shape)
        found = whole.run(**inputs)
        again = shallow.run(**inputs, deep_features=found["deep_features"])
        assert_close(again["model_output"], found["model_output"])


def test_with_features_of_another_time_it_is_diffusers_with_its_own_replaced(compiled):
    """Through a hook: the last block but one of the way up gives what it gave before."""
    unet, whole, shallow, _ = compiled("sd15")
    before, now = inputs_for(unet, 2, 8, 8, 7), inputs_for(unet, 2, 8, 8, 7)
    now["timestep"] = before["timestep"] / 2
    now["sample"] = before["sample"] * 0.9
    features = whole.run(**before)["deep_features"]
    assert features.std() > 0.1
    resnet = unet.up_blocks[-1].resnets[-2]

    def replace(module, arguments):
        joined, *others = arguments
        return torch.cat([features, joined[:, features.shape[1] :]], dim=1), *others

    handle = resnet.register_forward_pre_hook(replace)
    with torch.inference_mode():
        expected = unet(**now).sample
    handle.remove()
    found = shallow.run(**now, deep_features=features)["model_output"]
    assert_close(found, expected)
    assert (found - whole.run(**now)["model_output"]).abs().max() > 1e-2


@pytest.mark.parametrize("precision", [None, Int8Matmuls()])
def test_it_reads_the_weights_of_the_whole_unet(tmp_path, precision):
    options = {} if precision is None else {"precision": precision}
    compile_module(make_unet(**SMALL), tmp_path, "unet", **options)
    whole, shallow = (_places(tmp_path / f"{name}.onnx") for name in ("unet", "unet_shallow"))
    assert 10 < len(shallow) < len(whole)
    assert shallow.items() <= whole.items()
    assert {place[0] for place in shallow.values()} == {"unet.onnx.data"}
    assert not list(tmp_path.glob("unet_shallow.onnx.*"))


def test_its_nodes_have_the_names_that_they_have_in_the_whole_unet(compiled):
    *_, folder = compiled("sdxl")
    whole, shallow = (
        {node.name for node in onnx.load(folder / file, load_external_data=False).graph.node}
        for file in ("unet.onnx", "unet_shallow.onnx")
    )
    assert shallow < whole


def _places(graph):
    """Tensor name -> file, offset and length of its numbers."""
    tensors = onnx.load(graph, load_external_data=False).graph.initializer
    external = [tensor for tensor in tensors if tensor.external_data]
    places = {tensor.name: ExternalDataInfo(tensor) for tensor in external}
    return {name: (at.location, at.offset, at.length) for name, at in places.items()}
