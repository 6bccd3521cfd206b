"""One request on its way through a worker: prompts in, deltas of its answers and usage out."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Many
from dataclasses import dataclass, replace

from engines.errors import ContextLengthExceeded
from engines.llm.output import StepOutput, TokenLogprobs
from engines.llm.sampling_params import SamplingParams
from engines.llm.sequence import FinishReason, Sequence
from server.answer import Answer, Delta, TokenEntry
from server.in_flight import InFlight
from server.observe import RequestRecord
from server.registry import ChatModel
from server.schema.usage import CompletionTokensDetails, CompletionUsage, PromptTokensDetails
from server.text.chat_format import ReasoningCounter
from server.text.constraints import AnswerConstraint
from server.text.stop_strings import StopMatcher, StopStrings

_SEED_BITS = 2**64 - 1  # seeds are taken modulo 2**64, so that negative ones work


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationOptions:
    """What is asked of each prompt."""

    sampling: SamplingParams
    num_choices: int = 1
    stops: StopStrings | None = None
    skip_special_tokens: bool = True
    echoes: tuple[str, ...] | None = None  # the prompts' texts, to be repeated before the answers
    new_constraint: Callable[[], AnswerConstraint] | None = None  # of each answer
    new_counter: Callable[[], ReasoningCounter] | None = None  # of each answer's reasoning


class Generation(InFlight[StepOutput, Delta]):
    """The answers to one or more prompts, `num_choices` for each, in the prompts' order.

    The news are deltas, at most one at a time for each answer.

    Raises:
        QueueFull: As many sequences wait as the worker's queue holds.
        ServerUnavailable: The worker takes no requests.
    """

    def __init__(
        self,
        model: ChatModel,
        prompts: Many[list[int]],
        options: GenerationOptions,
        record: RequestRecord,
    ) -> None:
        self._model = model
        self._prompts = prompts
        self._num_choices = options.num_choices
        self._num_cached: dict[int, int] = {}  # by prompt
        seq_ids = model.worker.new_ids(len(prompts) * options.num_choices)
        self.answers = {
            seq_id: _answer(model, options, index) for index, seq_id in enumerate(seq_ids)
        }
        new_constraint = options.new_constraint
        self._constraints = (
            {} if new_constraint is None else {seq_id: new_constraint() for seq_id in seq_ids}
        )
        sequences = [
            Sequence.from_prompt(
                seq_id,
                prompts[index // options.num_choices],
                _seeded(options.sampling, index % options.num_choices),
                self._constraints.get(seq_id),
            )
            for index, seq_id in enumerate(seq_ids)
        ]
        super().__init__(model.worker.run(sequences), record)
        record.admitted(self.num_prompt_tokens)

    @property
    def num_prompt_tokens(self) -> int:
        """Of all prompts, each counted once."""
        return sum(map(len, self._prompts))

    @property
    def usage(self) -> CompletionUsage:
        num_output_tokens = sum(answer.num_tokens for answer in self.answers.values())
        return CompletionUsage(
            prompt_tokens=self.num_prompt_tokens,
            completion_tokens=num_output_tokens,
            total_tokens=self.num_prompt_tokens + num_output_tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=sum(self._num_cached.values())),
            completion_tokens_details=CompletionTokensDetails(
                reasoning_tokens=sum(a.num_reasoning_tokens for a in self.answers.values())
            ),
        )

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended the first answer, if one did."""
        return next(iter(self.answers.values())).stop_string

    @property
    def finish_reason(self) -> str:
        """That of the first answer, or `abort` while not all are complete."""
        first = next(iter(self.answers.values()))
        return (first.finish_reason if self.is_complete else None) or "abort"

    @property
    def is_complete(self) -> bool:
        return all(answer.finish_reason is not None for answer in self.answers.values())

    async def __anext__(self) -> list[Delta] | None:
        outputs = await self._stream.__anext__()
        if outputs is None:
            return None
        texts: dict[int, str] = {}  # by sequence
        num_tokens = 0
        for output in outputs:
            answer = self.answers[output.seq_id]
            if answer.finish_reason is not None:
                continue  # a stop string ended it a step ago
            if not answer.num_tokens:
                self._begin(answer, output)
            num_tokens += output.token_id is not None
            self._check_form(output)
            text = answer.push(output)
            texts[output.seq_id] = texts.get(output.seq_id, "") + text
            if answer.finish_reason is not None and output.finish_reason is None:
                self._stream.abort(output.seq_id)
        self._record.tokens(num_tokens)
        return [self._delta(self.answers[seq_id], text) for seq_id, text in texts.items()]

    def _check_form(self, output: StepOutput) -> None:
        """Raises `InvalidRequest` where an answer ends as its grammar could not be followed."""
        if output.finish_reason is not FinishReason.STOP or not self._constraints:
            return
        failure = self._constraints[output.seq_id].failure
        if failure is not None:
            raise failure

    def _delta(self, answer: Answer, text: str) -> Delta:
        return Delta(answer.index, text, answer.finish_reason, answer.take_entries())

    def _begin(self, answer: Answer, output: StepOutput) -> None:
        prompt, choice = divmod(answer.index, self._num_choices)
        if choice == 0:  # the others reuse what it has computed
            self._num_cached[prompt] = output.num_cached_tokens
            self._record.admitted(self.num_prompt_tokens, sum(self._num_cached.values()))
        self._note_start()
        if output.prompt_logprobs is not None:
            answer.add_prompt_entries(self._prompt_entries(prompt, output.prompt_logprobs))

    def _prompt_entries(
        self, prompt: int, logprobs: tuple[TokenLogprobs | None, ...]
    ) -> list[TokenEntry]:
        detokenizer = self._model.text.detokenizer(skip_special_tokens=False)
        entries, offset = [], 0
        for token_id, token_logprobs in zip(self._prompts[prompt], logprobs, strict=True):
            entries.append(TokenEntry(token_id, offset, token_logprobs))
            offset += len(detokenizer.push(token_id))
        return entries


def token_limit(
    max_context: int, num_prompt_tokens: int, max_tokens: int | None, param: str
) -> int:
    """How many tokens an answer may have; without `max_tokens` all that the context has room for.

    Raises:
        ContextLengthExceeded: The prompt (`param` in the request), or it and the answer that was
            asked for, do not fit.
    """
    num_asked = 1 if max_tokens is None else max_tokens
    limit = f"This model's maximum context length is {max_context} tokens"
    if num_prompt_tokens + min(num_asked, 1) > max_context:
        raise ContextLengthExceeded(
            f"{limit}, but the prompt has {num_prompt_tokens} tokens, which leaves no room for an "
            "answer",
            param,
        )
    if num_prompt_tokens + num_asked > max_context:
        raise ContextLengthExceeded(
            f"{limit}, but this request asks for {num_prompt_tokens + num_asked}: "
            f"{num_prompt_tokens} in the prompt and {num_asked} for the answer",
            param,
        )
    return max_context - num_prompt_tokens if max_tokens is None else max_tokens


def _answer(model: ChatModel, options: GenerationOptions, index: int) -> Answer:
    text, stops, echoes = model.text, options.stops, options.echoes
    return Answer(
        index,
        text.detokenizer(skip_special_tokens=options.skip_special_tokens),
        None if stops is None else StopMatcher(stops),
        None if echoes is None else echoes[index // options.num_choices],
        None if options.new_counter is None else options.new_counter(),
    )


def _seeded(sampling: SamplingParams, choice: int) -> SamplingParams:
    if sampling.seed is None:
        return sampling
    return replace(sampling, seed=(sampling.seed + choice) & _SEED_BITS)
