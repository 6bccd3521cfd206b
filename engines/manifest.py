"""`engine.json`: what an engine is, what it was built from and how far it is from its reference.

The exporter writes it last and by rename, so a folder that holds one is a whole engine.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Literal

import msgspec

from engines.errors import EngineIncompatible, EngineNotFound, InvalidManifest
from engines.pooling.spec import (
    EmbeddingSpec,
    EmbeddingVerification,
    RerankSpec,
    RerankVerification,
)
from engines.reports import (
    CacheQuantization,
    ImageVerification,
    QuantizationReport,
    Smoothing,
    Verification,
)

FORMAT_VERSION = 1
MANIFEST_NAME = "engine.json"

Precision = Literal["fp32", "fp16", "bf16", "int8", "int4"]
Target = Literal["ort-cpu", "cuda", "tensorrt"]
"""What executes an engine: ONNX Runtime on CPU or on CUDA, or TensorRT."""
StateDtype = Literal["float32", "float16", "bfloat16", "int8"]


class FileEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Size in bytes and SHA-256 (hex) of one file of the engine."""

    size: int
    sha256: str


class LoraSource(msgspec.Struct, frozen=True, kw_only=True):
    """A LoRA that was added to the weights before they were compiled."""

    name: str  # of its file
    scale: float
    sha256: str  # of its file
    num_modules: int  # layers that it was added to


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where the engine came from: a hub id or a folder's name (never a local path)."""

    checkpoint: str
    revision: str | None = None
    sha256: str | None = None  # over the names, sizes and contents of the weight files
    loras: tuple[LoraSource, ...] = ()


class StateSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One named state that the engine keeps for each slot.

    A state with `grows` has a row a token: its shape for a slot is
    `[heads, max_context + spare_rows, width]`; one without has `[heads, rows, width]`, and is zero
    before the first token. `input` and `output` are the graph's names, bound to the same memory.
    What is not `truncatable` cannot go back to fewer tokens.
    """

    input: str
    output: str
    heads: int
    width: int
    dtype: StateDtype = "float32"
    grows: bool = True
    rows: int | None = None  # of a state that does not grow
    truncatable: bool = True


class ChatSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What the runner and the text layer must know of a language model."""

    graph: str  # file name of the graph, for example model.onnx
    vocab_size: int  # columns of the logits
    num_tokens: int  # ids the tokenizer knows; columns beyond are padding and never sampled
    max_context: int  # prompt and answer together, in tokens
    spare_rows: int = 1  # rows behind max_context where idle slots write
    states: tuple[StateSpec, ...]
    eos_token_ids: tuple[int, ...]
    num_parameters: int
    kv_cache: Literal["slots", "blocks"] = "slots"  # how the states of sequences are kept apart
    reads_positions: bool = False  # whether a graph for CUDA has the input `position_ids`
    num_candidates: int = 0  # the likeliest tokens that the graph gives of a row; 0: the row alone
    decode_graph: str | None = None  # for runs of one token a sequence; None: `graph` runs them too
    decode_precision: Precision | None = None  # of most weights of `decode_graph`
    cache_quantization: CacheQuantization | None = None  # of states in int8
    smoothing: Smoothing | None = None  # of the activations that weights in int8 read


class TextEncoderSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One text encoder of an image model and the tokenizer that it reads.

    A text is at most `max_length` ids: the prefix, as much of the text as fits, the suffix, and
    padding up to `max_length`. Without a `pad_token_id` it ends behind the suffix.

    `context` says where the rows of its text go for the denoiser: beside or behind those of the
    encoders before it, or nowhere, where it gives the pooled text alone.
    """

    graph: str
    tokenizer: str  # file name of its tokenizer.json
    vocab_size: int
    max_length: int
    prefix_token_ids: tuple[int, ...]
    suffix_token_ids: tuple[int, ...]
    pad_token_id: int | None
    empty_token_ids: tuple[int, ...] = ()  # between prefix and suffix where there is no text
    context: Literal["beside", "behind", "none"] = "beside"
    gives_pooled: bool = False  # pooled texts of several encoders stand side by side


class TensorSignature(msgspec.Struct, frozen=True, kw_only=True):
    """An input or output; a name in its shape differs between runs, `name - 2` is two less."""

    dtype: Literal["float32", "int64"]
    shape: tuple[int | str, ...]


class GraphSignature(msgspec.Struct, frozen=True, kw_only=True):
    """What a graph reads and gives, by name."""

    inputs: dict[str, TensorSignature]
    outputs: dict[str, TensorSignature]


class ImageSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What the runner, the engine and the server must know of an image model.

    What the model predicts and on which noise schedule is in the file `scheduler`, the checkpoint's
    own `scheduler_config.json`, with what its pipeline adds.

    With `guidance` "classifier-free" every step runs the model for a negative prompt too; a model
    with "distilled" is told the scale, and one with "none" knows none.
    """

    pipeline: Literal[
        "stable-diffusion", "stable-diffusion-xl", "stable-diffusion-3", "flux", "qwen-image"
    ]
    text_encoders: tuple[TextEncoderSpec, ...]
    denoiser: str
    shallow_denoiser: str | None = None  # for steps that reuse deep features of an earlier one
    vae_decoder: str
    vae_encoder: str
    scheduler: str
    latent_channels: int
    latent_scale: int  # pixels that one latent stands for, along each side
    size_multiple: int  # height and width are multiples of it
    max_pixels: int
    max_side: int | None = None  # pixels, where the denoiser's table of positions ends
    default_height: int
    default_width: int
    default_num_inference_steps: int
    default_guidance_scale: float
    takes_sizes: bool = False  # the denoiser is told the picture's size
    context_width: int | None = None  # narrower rows of texts get zeros; None: as the widest are
    num_empty_rows: int = 0  # rows of zeros behind those of the texts
    zeros_without_negative: bool = False  # no negative prompt is zeros, not an empty text
    guidance: Literal["classifier-free", "distilled", "none"] = "classifier-free"
    rescales_guidance: bool = False  # the guided prediction is as long as the prompt's, by patch
    guidance_width: int | None = None  # waves that stand for the scale (LCM); None: it is a number
    num_parameters: int
    graphs: dict[str, GraphSignature] = {}  # by file, for backends that need to know beforehand

    @property
    def takes_negative_prompt(self) -> bool:
        return self.guidance == "classifier-free"

    @property
    def takes_guidance_scale(self) -> bool:
        return self.guidance != "none"

    @property
    def patch_size(self) -> int:
        """Latents along a side that the denoiser sees as one."""
        return self.size_multiple // self.latent_scale

    @property
    def has_step_caching(self) -> bool:
        return self.shallow_denoiser is not None

    @property
    def has_ragged_texts(self) -> bool:
        """Whether texts are not padded, so that the denoiser is told how long each one is."""
        return any(encoder.pad_token_id is None for encoder in self.text_encoders)

    @property
    def files(self) -> tuple[str, ...]:
        """Every file of the engine that the specification names."""
        graphs = (self.denoiser, self.vae_decoder, self.vae_encoder, self.scheduler)
        shallow = () if self.shallow_denoiser is None else (self.shallow_denoiser,)
        texts = ((encoder.graph, encoder.tokenizer) for encoder in self.text_encoders)
        return graphs + shallow + tuple(name for pair in texts for name in pair)


class PlanDevice(msgspec.Struct, frozen=True, kw_only=True):
    """What plans were built on and with: they run there and nowhere else."""

    gpu: str  # for example "NVIDIA H200"
    compute_capability: str  # for example "9.0"
    tensorrt: str  # the version, for example "11.4.0.106"


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `engine.json`."""

    format_version: int = FORMAT_VERSION
    kind: Literal["chat", "image", "embedding", "rerank"]
    id: str
    family: str
    created: int  # seconds since the epoch
    source: Source
    precision: Precision
    node_precision: dict[str, str] = {}  # node class (embedding, attention, mlp, head) -> layout
    reduce_range: bool = False  # weights in int8 fill 7 bits: exact without VNNI at full speed
    target: Target = "ort-cpu"
    built_with: dict[str, str] = {}
    device: PlanDevice | None = None  # where the plans were built; None while there are none
    files: dict[str, FileEntry]
    chat: ChatSpec | None = None
    image: ImageSpec | None = None
    embedding: EmbeddingSpec | None = None
    rerank: RerankSpec | None = None
    verification: Verification | None = None
    image_verification: ImageVerification | None = None
    embedding_verification: EmbeddingVerification | None = None
    rerank_verification: RerankVerification | None = None
    quantization: QuantizationReport | None = None
    precision_reason: str | None = None  # the sentence that says why an image model is not int8
    unused_weights: str | None = None  # the sentence that says what of the checkpoint is left out
    stored_weights: str | None = None  # what became of weights that the checkpoint has quantized
    verification_skipped: str | None = None  # the sentence that says why there is no report


def read_manifest(engine_dir: Path) -> Manifest:
    """Read and check `engine_dir/engine.json`.

    Raises:
        EngineNotFound: There is no engine.json.
        InvalidManifest: It is not JSON, lacks a field, or names a file outside the folder.
        EngineIncompatible: Its format version is another one.
    """
    path = engine_dir / MANIFEST_NAME
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise EngineNotFound(f"{engine_dir} holds no {MANIFEST_NAME}") from None
    try:
        version = msgspec.json.decode(raw, type=_Version).format_version
        if version != FORMAT_VERSION:
            raise EngineIncompatible(
                f"{path} has format version {version}, but this release reads {FORMAT_VERSION}: "
                "export the checkpoint again"
            )
        manifest = msgspec.json.decode(raw, type=Manifest)
    except msgspec.DecodeError as error:
        raise InvalidManifest(f"{path} cannot be read: {error}") from None
    for name in manifest.files:
        if not is_inside(name):
            raise InvalidManifest(f"{path} names the file {name!r}, which leaves the folder")
    _check_spec(manifest, path)
    return manifest


def write_manifest(manifest: Manifest, engine_dir: Path) -> None:
    """Write `engine.json` by rename, so that readers see all of it or none."""
    partial = engine_dir / f".{MANIFEST_NAME}.partial"
    encoded = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    with partial.open("wb") as file:
        file.write(encoded + b"\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(engine_dir / MANIFEST_NAME)


def is_inside(name: str) -> bool:
    """Whether a relative file name stays below the folder it is resolved in."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name and name != ""


def _check_spec(manifest: Manifest, path: Path) -> None:
    if getattr(manifest, manifest.kind) is None:
        raise InvalidManifest(
            f"{path} is of kind {manifest.kind} but has no field `{manifest.kind}`"
        )
    for spec in (manifest.chat, manifest.embedding, manifest.rerank):
        if spec is not None and spec.graph not in manifest.files:
            raise InvalidManifest(f"{path} does not list its graph {spec.graph!r} in `files`")
    for name in manifest.image.files if manifest.image is not None else ():
        if name not in manifest.files:
            raise InvalidManifest(f"{path} does not list {name!r} of its image model in `files`")


class _Version(msgspec.Struct):
    format_version: int
