"""An engine that answers from a script, and what a served model needs around it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

from engines.llm.output import EngineStats, StepOutput, TokenLogprobs
from engines.llm.sequence import FinishReason, Sequence, SequenceStatus
from engines.manifest import ChatSpec, FileEntry, Manifest, Source
from engines.store import EngineFolder
from server.chat_worker import ChatWorker
from server.registry import ChatModel
from server.text.grammar import GrammarCompiler
from server.text.processor import TextProcessor
from tests.checkpoints import CHAT_TEMPLATE, build_tokenizer

Reply = Callable[[Sequence], list[int]]

LOGPROB = -0.5


class ScriptedEngine:
    """Writes what `reply` says, then ends the sequence: a token a step for up to `max_num_seqs`.

    `hold()` stops it before its next step, `release(n)` lets it take so many, `run()` all.
    """

    device = "cpu"

    def __init__(
        self,
        reply: Reply,
        *,
        eos_token_id: int,
        vocab_size: int,
        max_num_seqs: int = 4,
        max_context: int = 256,
        num_prefill_steps: int = 0,
    ) -> None:
        self.reply = reply
        self.eos_token_id = eos_token_id
        self.vocab_size = vocab_size
        self.max_num_seqs = max_num_seqs
        self.max_context = max_context
        self.num_prefill_steps = num_prefill_steps
        self.failure: Exception | None = None  # raised by the next step
        self.added: list[Sequence] = []
        self.aborted: list[int] = []
        self.num_steps = 0
        self.is_closed = False
        self._waiting: deque[Sequence] = deque()
        self._running: dict[int, Sequence] = {}
        self._scripts: dict[int, deque[int | None]] = {}
        self._permits: threading.Semaphore | None = None

    @property
    def has_work(self) -> bool:
        return bool(self._waiting or self._running)

    def hold(self) -> None:
        self._permits = threading.Semaphore(0)

    def release(self, num_steps: int = 1) -> None:
        assert self._permits is not None
        self._permits.release(num_steps)

    def run(self) -> None:
        permits, self._permits = self._permits, None
        if permits is not None:
            permits.release()

    def add(self, seq: Sequence) -> None:
        self.added.append(seq)
        self._waiting.append(seq)
        script: list[int | None] = [*self.reply(seq), self.eos_token_id]
        self._scripts[seq.seq_id] = deque([None] * self.num_prefill_steps + script)

    def abort(self, seq_id: int) -> None:
        self.aborted.append(seq_id)
        self._running.pop(seq_id, None)
        self._waiting = deque(seq for seq in self._waiting if seq.seq_id != seq_id)

    def step(self) -> list[StepOutput]:
        if self._permits is not None:
            self._permits.acquire()
        if self.failure is not None:
            raise self.failure
        assert self.has_work, "a step never runs with nothing to do"
        self.num_steps += 1
        while self._waiting and len(self._running) < self.max_num_seqs:
            seq = self._waiting.popleft()
            seq.status = SequenceStatus.RUNNING
            self._running[seq.seq_id] = seq
        outputs = [self._advance(seq) for seq in list(self._running.values())]
        return [output for output in outputs if output is not None]

    def stats(self) -> EngineStats:
        return EngineStats(len(self._waiting), len(self._running), self.num_steps, 0, 0, 0, 0, 0, 1)

    def close(self) -> None:
        self.is_closed = True

    def _advance(self, seq: Sequence) -> StepOutput | None:
        token_id = self._scripts[seq.seq_id].popleft()
        if token_id is None:
            return None
        is_first = not seq.num_output_tokens
        prompt_logprobs = self._prompt_logprobs(seq) if is_first else None
        if seq.sampling.max_tokens == 0:
            reason: FinishReason | None = FinishReason.LENGTH
        else:
            seq.token_ids.append(token_id)
            reason = self._finish_reason(seq, token_id)
        if reason is not None:
            del self._running[seq.seq_id]
            seq.status, seq.finish_reason = SequenceStatus.FINISHED, reason
        has_token = seq.sampling.max_tokens > 0
        return StepOutput(
            seq.seq_id,
            token_id if has_token else None,
            reason,
            self._logprobs(seq, token_id) if has_token else None,
            num_cached_tokens=1 if is_first else 0,
            prompt_logprobs=prompt_logprobs,
        )

    def _finish_reason(self, seq: Sequence, token_id: int) -> FinishReason | None:
        sampling = seq.sampling
        is_eos = token_id == self.eos_token_id and not sampling.ignore_eos
        if is_eos or token_id in sampling.stop_token_ids:
            return FinishReason.STOP
        is_full = seq.num_tokens >= self.max_context
        if is_full or seq.num_output_tokens >= sampling.max_tokens:
            return FinishReason.LENGTH
        return None

    def _logprobs(self, seq: Sequence, token_id: int) -> TokenLogprobs | None:
        if seq.sampling.num_logprobs is None:
            return None
        top = [(token_id, LOGPROB), *((i, LOGPROB - 1 - i) for i in range(40, 60))]
        return TokenLogprobs(token_id, LOGPROB, tuple(top[: seq.sampling.num_logprobs]))

    def _prompt_logprobs(self, seq: Sequence) -> tuple[TokenLogprobs | None, ...] | None:
        if not seq.sampling.prompt_logprobs:
            return None
        prompt = seq.token_ids[: seq.num_prompt_tokens]
        return (None, *(self._logprobs(seq, token_id) for token_id in prompt[1:]))


def write_text_files(
    folder: Path, template: str | None = CHAT_TEMPLATE, generation_config: str | None = None
) -> Path:
    """The text files of an engine folder: the tokenizer of the tiny checkpoints and a template."""
    folder.mkdir(parents=True, exist_ok=True)
    build_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}', encoding="utf-8")
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    if generation_config is not None:
        (folder / "generation_config.json").write_text(generation_config, encoding="utf-8")
    return folder


def scripted_engine(text: TextProcessor, reply: str | Reply, **options: int) -> ScriptedEngine:
    """An engine that speaks the language of `text`; a string is the answer to everything."""
    tokens = text.tokenizer.encode(reply) if isinstance(reply, str) else []
    return ScriptedEngine(
        reply if callable(reply) else lambda _: tokens,
        eos_token_id=text.tokenizer.special_tokens["<|im_end|>"],
        vocab_size=text.tokenizer.vocab_size,
        **options,
    )


def served_model(
    text: TextProcessor,
    engine: ScriptedEngine,
    *,
    id: str = "tiny",
    max_queue_size: int = 16,
    request_timeout_s: float | None = None,
) -> ChatModel:
    """A model as the server has it, with a manifest that names no real files."""
    manifest = Manifest(
        kind="chat",
        id=id,
        family="qwen3",
        created=1,
        source=Source(checkpoint=id),
        precision="fp32",
        files={"model.onnx": FileEntry(size=1, sha256="0" * 64)},
        chat=ChatSpec(
            graph="model.onnx",
            vocab_size=engine.vocab_size,
            num_tokens=engine.vocab_size,
            max_context=engine.max_context,
            states=(),
            eos_token_ids=(engine.eos_token_id,),
            num_parameters=1,
        ),
    )
    worker = ChatWorker(
        engine, name=id, max_queue_size=max_queue_size, request_timeout_s=request_timeout_s
    )
    return ChatModel(
        id=id,
        folder=EngineFolder(path=Path(id), manifest=manifest),
        worker=worker,
        text=text,
        grammars=GrammarCompiler(
            build_tokenizer().to_str, engine.vocab_size, [engine.eos_token_id]
        ),
    )
