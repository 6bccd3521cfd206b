"""An engine without a model: a token for every sequence each step, as fast as they are sent on."""

from __future__ import annotations

import asyncio
import threading

from engines.llm.output import EngineStats, StepOutput
from engines.llm.sequence import FinishReason, Sequence, SequenceStatus
from server.chat_worker import ChatWorker

_WAIT_S = 5.0  # for an event loop that hangs; then the engine goes on


class NullEngine:
    """Steps once the tokens of the last step were written to their streams.

    So every token is an event of its own, as with a model that is slower than the server. Tokens
    come from a list, each sequence beginning at another place.
    """

    device = "none"

    def __init__(self, token_ids: list[int], max_num_seqs: int, max_context: int) -> None:
        self.max_num_seqs = max_num_seqs
        self.max_context = max_context
        self.vocab_size = max(token_ids) + 1
        self.loop: asyncio.AbstractEventLoop | None = None  # set when the worker starts
        self._token_ids = token_ids
        self._running: dict[int, Sequence] = {}
        self._num_tokens = 0
        self._num_steps = 0

    @property
    def has_work(self) -> bool:
        return bool(self._running)

    def add(self, seq: Sequence) -> None:
        self._running[seq.seq_id] = seq
        seq.status = SequenceStatus.RUNNING

    def abort(self, seq_id: int) -> None:
        self._running.pop(seq_id, None)

    def step(self) -> list[StepOutput]:
        self._wait_for_the_loop()
        self._num_steps += 1
        self._num_tokens += len(self._running)
        token_ids, count = self._token_ids, len(self._token_ids)
        outputs = []
        for seq in list(self._running.values()):
            token_id = token_ids[(31 * seq.seq_id + seq.num_output_tokens) % count]
            seq.token_ids.append(token_id)
            is_last = seq.num_output_tokens >= seq.sampling.max_tokens
            outputs.append(
                StepOutput(seq.seq_id, token_id, FinishReason.LENGTH if is_last else None)
            )
            if is_last:
                del self._running[seq.seq_id]
        return outputs

    def stats(self) -> EngineStats:
        return EngineStats(
            num_waiting=0,
            num_running=len(self._running),
            num_steps=self._num_steps,
            prompt_tokens=0,
            generation_tokens=self._num_tokens,
            prefix_cache_queries=0,
            prefix_cache_hits=0,
            kv_cache_bytes=0,
            kv_cache_limit_bytes=0,
        )

    def close(self) -> None:
        """There is nothing to release."""

    def _wait_for_the_loop(self) -> None:
        """Until the event loop has run what the last hand-over woke.

        The hand-over is queued on the loop already. It wakes the streams' tasks, so what is queued
        behind it, and queues itself again, runs after them.
        """
        loop = self.loop
        if loop is None:
            return
        written = threading.Event()
        loop.call_soon_threadsafe(loop.call_soon, written.set)
        written.wait(_WAIT_S)


class NullWorker(ChatWorker):
    """Tells the engine which event loop it serves."""

    def start(self) -> None:
        super().start()
        engine = self._engine
        assert isinstance(engine, NullEngine)
        engine.loop = asyncio.get_running_loop()
