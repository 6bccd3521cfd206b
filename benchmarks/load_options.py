"""What a load on a server consists of: the options that `serve` and `compare` share."""

# Annotations are not postponed here: those of a dataclass are looked up in the module of the class
# that inherits it.

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from benchmarks.client import Endpoint, RequestOptions
from benchmarks.goodput import Limits
from benchmarks.options import (
    REPORT,
    HtmlTarget,
    JsonTarget,
    PlotsTarget,
    check_above_zero,
    check_at_least_one,
    check_json_target,
    numbers,
)
from benchmarks.workloads import SyntheticWorkload, WorkloadName

_REQUESTS = Group("Requests", sort_key=2)
_LOAD = Group("Load", sort_key=3)
_PROMPTS = Group("Prompts and answers", sort_key=4)
_DEFAULT_CONCURRENCY = 8
_REQUESTS_A_CLIENT = 4  # by default
_LEAST_REQUESTS = 16
_OPEN_LOOP_REQUESTS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPoint:
    """One load: so many clients (closed loop), arrivals at a rate (open loop), or a trace."""

    mode: Literal["closed", "open", "trace"]
    concurrency: int | None = None
    rate: float | None = None  # requests/s

    @property
    def name(self) -> str:
        if self.mode == "closed":
            return f"{self.concurrency} client" + ("" if self.concurrency == 1 else "s")
        return "trace" if self.mode == "trace" else f"{self.rate:g} requests/s"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """A load on a server with an OpenAI API."""

    endpoint: Annotated[Endpoint, Parameter(help="which route is loaded", group=_REQUESTS)] = "chat"
    api_key: Annotated[str | None, Parameter(help="sent as Bearer token", group=_REQUESTS)] = None
    timeout: Annotated[float, Parameter(help="seconds without a byte", group=_REQUESTS)] = 600.0
    stream: Annotated[bool, Parameter(help="stream the answers", group=_REQUESTS)] = True
    ignore_eos: Annotated[
        bool, Parameter(help="ask for answers of exactly --output-tokens", group=_REQUESTS)
    ] = False
    temperature: Annotated[
        float | None, Parameter(help="default: the server's", group=_REQUESTS)
    ] = None

    concurrency: Annotated[
        tuple[int, ...],
        numbers("clients that each wait for their answer; default: 8 without a rate", _LOAD),
    ] = ()
    rate: Annotated[
        tuple[float, ...], numbers("requests/s with Poisson arrivals, however many wait", _LOAD)
    ] = ()
    trace: Annotated[
        Path | None, Parameter(help="JSONL with arrival times to replay", group=_LOAD)
    ] = None
    trace_speed: Annotated[
        float, Parameter(help="replay the trace so many times as fast", group=_LOAD)
    ] = 1.0
    num_requests: Annotated[
        int | None,
        Parameter(
            help="for each load; default: 4 for each client and at least 16, 64 with a rate, or "
            "the lines of --dataset",
            group=_LOAD,
        ),
    ] = None
    warmup: Annotated[
        int, Parameter(help="requests before each load that are not measured", group=_LOAD)
    ] = 1

    workload: Annotated[
        WorkloadName,
        Parameter(help="prompts that share nothing, a beginning, or a history", group=_PROMPTS),
    ] = "random"
    input_tokens: Annotated[
        int, Parameter(help="about this many, by the server's own count", group=_PROMPTS)
    ] = 256
    output_tokens: Annotated[
        int, Parameter(help="tokens of an answer, at most", group=_PROMPTS)
    ] = 128
    prefix_tokens: Annotated[
        int, Parameter(help="that all prompts of `shared-prefix` begin with", group=_PROMPTS)
    ] = 1024
    turns: Annotated[int, Parameter(help="requests of a `conversation`", group=_PROMPTS)] = 4
    prompt_file: Annotated[
        Path | None, Parameter(help="text to draw prompts from; default: built in", group=_PROMPTS)
    ] = None
    dataset: Annotated[
        Path | None,
        Parameter(help="JSONL with `prompt` or `messages`, perhaps `max_tokens`", group=_PROMPTS),
    ] = None
    seed: Annotated[
        int | None,
        Parameter(help="of prompts, arrivals and sampling; default: a new one", group=_PROMPTS),
    ] = None

    goodput: Annotated[
        tuple[str, ...],
        Parameter(
            help="limits in milliseconds such as ttft:500 itl:50; also gap, tpot and e2e",
            consume_multiple=True,
            negative="",
        ),
    ] = ()
    json: JsonTarget = None
    html: HtmlTarget = None
    plots: PlotsTarget = None
    quiet: Annotated[bool, Parameter(help="no progress bars", group=REPORT)] = False

    def __post_init__(self) -> None:
        check_json_target(self.json)
        counts = ("num_requests", "concurrency", "input_tokens", "output_tokens", "prefix_tokens")
        check_at_least_one(self, (*counts, "turns"))
        check_above_zero(self, ("rate", "timeout", "trace_speed"))
        if self.warmup < 0:
            raise ValueError(f"warmup is {self.warmup}, but it must be at least 0")
        self._check_prompts()
        Limits(self.goodput)

    def _check_prompts(self) -> None:
        given = [
            name for name in ("dataset", "prompt_file", "trace") if getattr(self, name) is not None
        ]
        if "dataset" in given and len(given) > 1:
            raise ValueError(f"{given[0]} and {given[1]} were both given, but one must be left out")
        if self.trace is not None and (self.concurrency or self.rate):
            raise ValueError("trace was given, so concurrency and rate must be left out")
        if self.workload != "random" and (self.dataset or self.trace):
            raise ValueError(
                f"workload is {self.workload!r}, so dataset and trace must be left out"
            )
        if self.workload == "conversation" and self.endpoint != "chat":
            raise ValueError("workload is 'conversation', which needs the endpoint 'chat'")

    @property
    def points(self) -> list[LoadPoint]:
        """The loads, in the order in which they are run."""
        if self.trace is not None:
            return [LoadPoint(mode="trace")]
        clients = self.concurrency or (() if self.rate else (_DEFAULT_CONCURRENCY,))
        closed = [LoadPoint(mode="closed", concurrency=count) for count in clients]
        return closed + [LoadPoint(mode="open", rate=rate) for rate in self.rate]

    def count(self, point: LoadPoint) -> int:
        """Requests of a load that has no dataset."""
        if self.num_requests is not None:
            return self.num_requests
        if point.concurrency is None:
            return _OPEN_LOOP_REQUESTS
        return max(_LEAST_REQUESTS, _REQUESTS_A_CLIENT * point.concurrency)

    def request_options(self, model: str) -> RequestOptions:
        return RequestOptions(
            model=model,
            endpoint=self.endpoint,
            max_tokens=self.output_tokens,
            stream=self.stream,
            ignore_eos=self.ignore_eos,
            temperature=self.temperature,
            seed=self.seed,
        )

    def synthetic(self) -> SyntheticWorkload:
        return SyntheticWorkload(
            kind=self.workload,
            input_tokens=self.input_tokens,
            prefix_tokens=self.prefix_tokens,
            turns=self.turns,
            is_chat=self.endpoint == "chat",
        )
