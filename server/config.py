"""The server's settings: one frozen dataclass that is also the command line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from engines.device import parse_device
from server.api_keys import read_keys
from server.sizes import parse_size, show_size

_MODELS = Group("Models", sort_key=1)
_HTTP = Group("HTTP", sort_key=2)
_ACCESS = Group("Access", sort_key=3)
_ENGINE = Group("Engines and memory", sort_key=4)
_LIMITS = Group("Limits", sort_key=5)
_IMAGES = Group("Images", sort_key=6)
_LOGGING = Group("Logging", sort_key=7)

_ORIGIN = re.compile(r"https?://[^/\s]+")
_COMMAS = "; several times, or several separated by commas"


def _size(_: Any, tokens: Sequence[Any]) -> int:
    return parse_size(tokens[0].value)


def _flag(help: str, group: Group, **settings: Any) -> Parameter:
    return Parameter(help=help, group=group, **settings)


def _size_flag(help: str, group: Group, **settings: Any) -> Parameter:
    return _flag(help, group, converter=_size, n_tokens=1, **settings)


def _many(help: str, group: Group) -> Parameter:
    return Parameter(help=help + _COMMAS, group=group, negative=(), show_default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Serve every compiled engine of a folder over the OpenAI API."""

    engine_dir: Annotated[
        Path, _flag("an engine, or a folder with engines anywhere below it", _MODELS)
    ] = Path("engines")
    served_model_name: Annotated[
        tuple[str, ...],
        _many("name to list instead of an engine's id; NAME=ENGINE says which engine", _MODELS),
    ] = ()
    owned_by: Annotated[str, _flag("`owned_by` in the list of models", _MODELS)] = "enginery"
    accept_any_model: Annotated[
        bool, _flag("answer any name with the only engine of its kind", _MODELS, negative="")
    ] = False
    verify_files: Annotated[
        bool,
        _flag(
            "compare the engines' files with their hashes before serving, unless they were found "
            "whole before and have not changed since",
            _MODELS,
        ),
    ] = True

    host: Annotated[str, _flag("address to listen on; 0.0.0.0 for all", _HTTP)] = "127.0.0.1"
    port: Annotated[int, _flag("port to listen on; 0 takes a free one", _HTTP)] = 8000
    cors_origin: Annotated[
        tuple[str, ...],
        _many("origin whose pages may call, or * for all; localhost always may", _HTTP),
    ] = ()

    api_key: Annotated[
        tuple[str, ...],
        _many("key that clients send as Bearer token, or @FILE with a key a line", _ACCESS),
    ] = field(default=(), repr=False)
    api_key_file: Annotated[Path | None, _flag("file with a key a line", _ACCESS)] = None
    api_auth: Annotated[
        str | None, _flag("USER:PASSWORD that clients send as Basic authentication", _ACCESS)
    ] = field(default=None, repr=False)

    device: Annotated[
        str,
        _flag("auto (what each engine was built for), cpu, cuda or cuda:N", _ENGINE),
    ] = "auto"
    gpu_memory_utilization: Annotated[
        float, _flag("share of a GPU's memory that a language model may take", _ENGINE)
    ] = 0.9
    rebuild: Annotated[
        bool,
        _flag(
            "build TensorRT plans anew that were made for another GPU or version",
            _ENGINE,
            negative="",
        ),
    ] = False
    max_num_seqs: Annotated[
        int | None,
        _flag(
            "answers that a language model writes at a time; default: 8 on a CPU, 256 on a GPU, "
            "32 there with slots",
            _ENGINE,
        ),
    ] = None
    kv_cache_memory: Annotated[
        int | None,
        _size_flag(
            "memory for each engine's KV cache, such as 4GiB; default: a share of half the free",
            _ENGINE,
        ),
    ] = None
    max_context: Annotated[
        int | None, _flag("tokens of prompt and answer; default: the engine's own", _ENGINE)
    ] = None
    num_threads: Annotated[
        int | None, _flag("threads of an engine; default: the physical cores", _ENGINE)
    ] = None
    prefill_chunk: Annotated[
        int | None,
        _flag(
            "prompt tokens computed at a time while nothing streams; default: 128 on a CPU, 2048 "
            "on a GPU, 512 there with slots",
            _ENGINE,
        ),
    ] = None
    prefill_chunk_streaming: Annotated[
        int | None,
        _flag(
            "prompt tokens computed between two steps of running streams; default: 64 on a CPU, "
            "512 on a GPU, 256 there with slots",
            _ENGINE,
        ),
    ] = None
    max_draft_tokens: Annotated[
        int, _flag("tokens guessed ahead for a stream that runs alone; 0 is off", _ENGINE)
    ] = 0

    max_queue_size: Annotated[
        int, _flag("answers that may wait for each language model; beyond is 429", _LIMITS)
    ] = 256
    max_text_queue_size: Annotated[
        int, _flag("texts that may wait to be embedded or ranked; beyond is 429", _LIMITS)
    ] = 4096
    max_body_size: Annotated[
        int,
        _size_flag(
            "largest request body, such as 512KiB; beyond is 413", _LIMITS, show_default=show_size
        ),
    ] = 16 * 2**20
    max_stored_responses: Annotated[
        int, _flag("responses kept for `previous_response_id`; the oldest goes first", _LIMITS)
    ] = 1000
    max_stored_responses_size: Annotated[
        int,
        _size_flag("size of all these responses, such as 64MiB", _LIMITS, show_default=show_size),
    ] = 64 * 2**20
    request_timeout: Annotated[
        float | None, _flag("seconds that a request may take; default: any", _LIMITS)
    ] = None
    drain_timeout: Annotated[
        float, _flag("seconds that running requests get after SIGTERM or Ctrl-C", _LIMITS)
    ] = 30.0

    max_num_images: Annotated[
        int, _flag("pictures that an image engine draws at a time", _IMAGES)
    ] = 4
    vae_tiling: Annotated[
        Literal["auto", "on", "off"],
        _flag("decode pictures in tiles: where memory is short, always or never", _IMAGES),
    ] = "auto"
    vae_tile_size: Annotated[int, _flag("pixels a side of such a tile", _IMAGES)] = 512
    max_image_queue_size: Annotated[
        int, _flag("pictures that may wait for each image engine; beyond is 429", _IMAGES)
    ] = 64
    max_upload_size: Annotated[
        int,
        _size_flag(
            "largest form with its images, such as 20MiB; beyond is 413",
            _IMAGES,
            show_default=show_size,
        ),
    ] = 20 * 2**20
    max_upload_pixels: Annotated[
        int, _flag("pixels of an uploaded image; beyond is 400", _IMAGES)
    ] = 2**25
    image_dir: Annotated[
        Path | None,
        _flag("folder for pictures that are fetched by URL; default: memory alone", _IMAGES),
    ] = None
    image_lifetime: Annotated[
        float, _flag("seconds that a picture can be fetched by its URL", _IMAGES)
    ] = 3600.0
    max_image_files: Annotated[
        int, _flag("pictures kept for their URLs; the oldest goes first", _IMAGES)
    ] = 1000
    max_image_files_size: Annotated[
        int,
        _size_flag("size of all these pictures, such as 256MiB", _IMAGES, show_default=show_size),
    ] = 256 * 2**20

    log_format: Annotated[
        Literal["text", "json"], _flag("lines for people or objects for programs", _LOGGING)
    ] = "text"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], _flag("least level to log", _LOGGING)
    ] = "info"

    def __post_init__(self) -> None:
        _check_range("port", self.port, 0, 65535)
        _check_range("max_num_seqs", self.max_num_seqs, 1)
        parse_device(self.device)
        if not 0 < self.gpu_memory_utilization <= 1:
            raise ValueError(
                f"gpu_memory_utilization is {self.gpu_memory_utilization}, but it must be above 0 "
                "and at most 1"
            )
        _check_range("kv_cache_memory", self.kv_cache_memory, 1)
        _check_range("max_context", self.max_context, 2)
        _check_range("num_threads", self.num_threads, 1)
        _check_range("prefill_chunk", self.prefill_chunk, 2)
        _check_range("prefill_chunk_streaming", self.prefill_chunk_streaming, 2)
        _check_range("max_draft_tokens", self.max_draft_tokens, 0, _MAX_DRAFT_TOKENS)
        _check_range("max_queue_size", self.max_queue_size, 0)
        _check_range("max_text_queue_size", self.max_text_queue_size, 0)
        _check_range("max_body_size", self.max_body_size, 1)
        _check_range("max_stored_responses", self.max_stored_responses, 0)
        _check_range("max_stored_responses_size", self.max_stored_responses_size, 1)
        _check_range("drain_timeout", self.drain_timeout, 0)
        _check_range("max_num_images", self.max_num_images, 1)
        _check_range("vae_tile_size", self.vae_tile_size, 64)
        _check_range("max_image_queue_size", self.max_image_queue_size, 0)
        _check_range("max_upload_size", self.max_upload_size, 1)
        _check_range("max_upload_pixels", self.max_upload_pixels, 1)
        _check_range("max_image_files", self.max_image_files, 1)
        _check_range("max_image_files_size", self.max_image_files_size, 1)
        if not self.image_lifetime > 0:
            raise ValueError(f"image_lifetime is {self.image_lifetime}, but it must be above 0")
        if self.request_timeout is not None and not self.request_timeout > 0:
            raise ValueError(f"request_timeout is {self.request_timeout}, but it must be above 0")
        if self.api_auth is not None and not all(self.api_auth.partition(":")):
            raise ValueError("api_auth must be USER:PASSWORD, neither of them empty")
        if any(not key.strip() for key in self.api_key):
            raise ValueError("api_key is empty: leave it out to serve without keys")
        for origin in self.cors_origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"cors_origin is {origin!r}, but it must be * or like https://example.org"
                )

    @property
    def cors_origins(self) -> tuple[str, ...]:
        return tuple(origin.rstrip("/") for origin in _split(self.cors_origin))

    @property
    def served_names(self) -> tuple[str, ...]:
        return _split(self.served_model_name)

    def api_keys(self) -> tuple[str, ...]:
        """All keys, those in files too.

        Raises:
            ValueError: A file cannot be read or holds no key, or a key is empty.
        """
        files = [] if self.api_key_file is None else [self.api_key_file]
        keys = []
        for key in _split(self.api_key):
            if key.startswith("@"):
                files.append(Path(key[1:]))
            else:
                keys.append(key)
        for path in files:
            keys.extend(read_keys(path))
        return tuple(dict.fromkeys(keys))


def _split(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip())


_MAX_DRAFT_TOKENS = 32  # beyond, a run costs more than it can ever save


def _check_range(name: str, value: float | None, low: float, high: float | None = None) -> None:
    if value is None:
        return
    if not value >= low or (high is not None and value > high):
        limit = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} is {value}, but it must be {limit}")
