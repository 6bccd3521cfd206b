"""Turn the cache of a compiled decoder from float32 to int8, in place.

GroupQueryAttention rounds keys, rotated, and values where it writes them, and widens them where it
reads them; a constant for each channel of each head says by what. The rest of the graph stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

import msgspec
import onnx_ir as ir

from engines.manifest import ChatSpec, Target
from engines.reports import CacheQuantization
from export.cache.ranges import MARGIN, FloatArray, measure_ranges, scale_of
from export.calibration import calibration_sequences
from export.errors import ExportError
from export.precision import KVCachePrecision
from export.qwen.config import DecoderConfig

_INPUTS_WITH_SCALES = 14  # of GroupQueryAttention
_PAST_KEY, _KEY_SCALE = 3, 12  # and behind each what is of the values


def check_cache_precision(
    precision: KVCachePrecision | None, target: Target, config: DecoderConfig
) -> None:
    """Refuse a precision of the cache that an engine cannot have.

    Raises:
        ExportError: It says why.
    """
    if precision is None:
        return
    if target != "ort-cpu":
        raise ExportError(
            f"--kv-cache-precision is {precision}, but engines for {target} keep keys and values "
            "in the precision that they compute in: leave it out"
        )
    if precision == "fp32":
        return
    if config.delta_net is not None:
        raise ExportError(
            "--kv-cache-precision is int8, but the model has Gated DeltaNet layers, whose states "
            "are kept in fp32 with the keys and values of the others: leave it out"
        )
    if find_spec("onnxruntime") is None:
        raise ExportError(
            "--kv-cache-precision is int8, but ONNX Runtime, which measures keys and values, is "
            "not installed: pip install 'enginery[cpu]'"
        )


def quantize_cache(
    engine_dir: Path,
    spec: ChatSpec,
    graphs: Iterable[str],
    texts: tuple[str, ...],
    rotary_width: int,
) -> ChatSpec:
    """Measure what the cache gets, rewrite the graphs, and return what is now to be said of them.

    Args:
        engine_dir: Holds the graphs, their weights and the tokenizer.
        spec: Describes the engine as it is, with states in float32.
        graphs: The files to rewrite.
        texts: What the model reads while it is measured.
        rotary_width: The numbers of each head that are rotated.
    """
    sequences = calibration_sequences(engine_dir, spec, texts)
    ranges = measure_ranges(engine_dir / spec.graph, spec, sequences, rotary_width)
    scales = {name: scale_of(magnitudes) for name, magnitudes in ranges.items()}
    for name in graphs:
        _rewrite(engine_dir / name, scales)
    states = tuple(msgspec.structs.replace(state, dtype="int8") for state in spec.states)
    report = CacheQuantization(num_tokens=sum(map(len, sequences)), margin=MARGIN)
    return msgspec.structs.replace(spec, states=states, cache_quantization=report)


def _rewrite(path: Path, scales: Mapping[str, FloatArray]) -> None:
    model = ir.load(path)
    for node in model.graph:
        if node.op_type == "GroupQueryAttention":
            _quantize(node, model.graph, scales)
    ir.save(model, path)


def _quantize(node: ir.Node, graph: ir.Graph, scales: Mapping[str, FloatArray]) -> None:
    node.resize_inputs(_INPUTS_WITH_SCALES)
    pasts = node.inputs[_PAST_KEY : _PAST_KEY + 2]
    for index, past in enumerate(pasts, start=_KEY_SCALE):
        assert past is not None
        assert past.name is not None
        tensor = ir.tensor(scales[past.name].reshape(-1), name=f"{past.name}.scale")
        scale = ir.Value(
            name=tensor.name,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(tensor.shape.numpy()),
            const_value=tensor,
        )
        graph.register_initializer(scale)
        node.replace_input_with(index, scale)
    for value in (*pasts, *node.outputs[1:]):
        assert value is not None
        value.type = ir.TensorType(ir.DataType.INT8)
    node.attributes.add(ir.AttrString("k_quant_type", "PER_CHANNEL"))
    node.attributes.add(ir.AttrString("v_quant_type", "PER_CHANNEL"))
    node.attributes.add(ir.AttrInt64("kv_cache_bit_width", 8))
