"""The language-model engine: token ids in, token ids out, one batch a `step()`."""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

from engines.errors import InvalidRequest
from engines.llm.cache import Cache
from engines.llm.kv_cache import KVCache
from engines.llm.output import EngineStats, StepOutput
from engines.llm.prompt_logprobs import PromptLogprobs
from engines.llm.runner import ModelRunner, Runner, RunOutput
from engines.llm.sampler import Sampled, Sampler
from engines.llm.scheduled import ScheduledBatch
from engines.llm.scheduler import Scheduler, SchedulerConfig
from engines.llm.sequence import Sequence


class LLMEngine:
    """Continuous batching over one compiled model. One thread owns it; `stats` may be read by all.

    Args:
        runner: The compiled model; closed with the engine.
        config: Limits of a step.
        kv_cache: What the scheduler keeps sequences in; or the resident bytes that a cache of the
            runner's slots may take.
        device: What the engine runs on, for people to read.
    """

    def __init__(
        self, runner: Runner, config: SchedulerConfig, kv_cache: Cache | int, device: str
    ) -> None:
        self.device = device
        self.runner = runner
        cache = (
            KVCache(cast(ModelRunner, runner), kv_cache) if isinstance(kv_cache, int) else kv_cache
        )
        self.scheduler = Scheduler(config, cache)
        self.sampler = Sampler(runner.vocab_size)
        self._prompt_logprobs = PromptLogprobs()
        self._live: dict[int, Sequence] = {}
        self._num_steps = 0
        self._num_prompt_tokens = 0
        self._num_generated_tokens = 0

    @property
    def max_context(self) -> int:
        return self.scheduler.max_tokens

    @property
    def max_num_seqs(self) -> int:
        return self.scheduler.config.max_num_seqs

    @property
    def vocab_size(self) -> int:
        return self.runner.vocab_size

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work

    def add(self, seq: Sequence) -> None:
        """Queue a sequence; its tokens come out of later steps.

        Raises:
            ContextLengthExceeded: The prompt leaves no room for an answer.
            InvalidRequest: A token id is not in the vocabulary.
            ValueError: Its `seq_id` is in use.
        """
        if seq.seq_id in self._live:
            raise ValueError(f"seq_id {seq.seq_id} belongs to a sequence that is not finished")
        self._check_token_ids("prompt", seq.token_ids)
        self._check_token_ids("logit_bias", seq.sampling.logit_bias)
        self.scheduler.add(seq)
        self._live[seq.seq_id] = seq

    def abort(self, seq_id: int) -> None:
        """End a sequence before its time; unknown and finished ids are ignored."""
        seq = self._live.get(seq_id)
        if seq is not None:
            self.scheduler.abort(seq)
            self._drop(seq)

    def step(self) -> list[StepOutput]:
        """Run one batch; return what it did for each sequence that got a token or ended.

        The list is empty when nothing waits, and after a chunk that is not a prompt's last.

        Raises:
            RunFailed: The runtime failed; the engine has to be closed.
        """
        scheduled = self.scheduler.schedule()
        if scheduled is None:
            return []
        output = self.runner.run(scheduled.batch)
        self._prompt_logprobs.collect(scheduled, output)
        sampled = self.sampler.sample(output, scheduled.sampled_rows, scheduled.sampled)
        is_first = [seq.num_output_tokens == 0 for seq in scheduled.sampled]
        self.scheduler.update(scheduled, [token.token_id for token in sampled])
        self._num_steps += 1
        outputs = [
            self._output(seq, token, first)
            for seq, token, first in zip(scheduled.sampled, sampled, is_first, strict=True)
        ]
        if scheduled.draft:
            self._verify(scheduled, output, outputs)
        return outputs

    def stats(self) -> EngineStats:
        """Counters and gauges; a snapshot that may be a step old."""
        scheduler = self.scheduler
        return EngineStats(
            num_waiting=len(scheduler.waiting),
            num_running=len(scheduler.running) + len(scheduler.prefilling),
            num_steps=self._num_steps,
            prompt_tokens=self._num_prompt_tokens,
            generation_tokens=self._num_generated_tokens,
            prefix_cache_queries=scheduler.num_cache_queries,
            prefix_cache_hits=scheduler.num_cache_hits,
            draft_tokens=scheduler.lookup.num_draft_tokens,
            accepted_draft_tokens=scheduler.lookup.num_accepted_tokens,
            kv_cache_bytes=scheduler.cache.used_bytes,
            kv_cache_limit_bytes=scheduler.cache.limit_bytes,
        )

    def close(self) -> None:
        """Release the model and its caches. The engine cannot be used afterwards."""
        self._live.clear()
        self.sampler.close()
        self.runner.close()

    def _check_token_ids(self, param: str, token_ids: Collection[int]) -> None:
        if token_ids and not (min(token_ids) >= 0 and max(token_ids) < self.vocab_size):
            wrong = next(i for i in token_ids if not 0 <= i < self.vocab_size)
            raise InvalidRequest(
                f"{param} has the token id {wrong}, but ids run from 0 to {self.vocab_size - 1}",
                param,
            )

    def _verify(
        self, scheduled: ScheduledBatch, output: RunOutput, outputs: list[StepOutput]
    ) -> None:
        """Go on sampling behind each token of the draft that was sampled before it."""
        (seq,) = scheduled.sampled
        num_accepted = 0
        for drafted in scheduled.draft:
            if seq.is_finished or drafted != seq.token_ids[-1]:
                break
            num_accepted += 1
            row = scheduled.sampled_rows + num_accepted
            (token,) = self.sampler.sample(output, row, (seq,))
            self.scheduler.accept(seq, token.token_id)
            outputs.append(self._output(seq, token, is_first=False))
        self.scheduler.lookup.record(seq, len(scheduled.draft), num_accepted)

    def _output(self, seq: Sequence, token: Sampled, is_first: bool) -> StepOutput:
        """What is told of the newest token of a sequence."""
        has_token = seq.sampling.max_tokens > 0
        self._num_generated_tokens += has_token
        self._num_prompt_tokens += seq.num_prompt_tokens if is_first else 0
        output = StepOutput(
            seq_id=seq.seq_id,
            token_id=seq.token_ids[-1] if has_token else None,
            finish_reason=seq.finish_reason,
            logprobs=token.logprobs if has_token else None,
            num_cached_tokens=seq.num_cached_tokens,
            prompt_logprobs=self._prompt_logprobs.take(seq) if is_first else None,
        )
        if seq.is_finished:
            self._drop(seq)
        return output

    def _drop(self, seq: Sequence) -> None:
        del self._live[seq.seq_id]
        self.sampler.forget(seq)
        self._prompt_logprobs.take(seq)
