"""What transformers' and optimum's models have in common: `forward` with a growing cache."""

import time
from typing import Any

import torch

from benchmarks.peers.adapters.adapter import VOCABULARY, ChatModel


class TorchModel(ChatModel):
    """One static batch, greedy; `model` takes and returns `past_key_values`."""

    def __init__(self, model: Any, version: str) -> None:
        self._model = model
        self._generator = torch.Generator().manual_seed(0)
        self.version = version

    @torch.no_grad()
    def prefill(self, num_tokens: int) -> float:
        prompt = self._prompts(1, num_tokens)
        start = time.perf_counter()
        self._forward(prompt, None, num_tokens)
        return num_tokens / (time.perf_counter() - start)

    @torch.no_grad()
    def decode(self, streams: int, context: int, num_tokens: int) -> float:
        token_ids, past = self._forward(self._prompts(streams, context), None, context)
        start = time.perf_counter()
        for step in range(num_tokens):
            token_ids, past = self._forward(token_ids, past, context + step + 1)
        return streams * num_tokens / (time.perf_counter() - start)

    def _forward(self, token_ids: Any, past: Any, length: int) -> tuple[Any, Any]:
        """The next token of each row [rows, 1], and the cache."""
        rows, count = token_ids.shape
        positions = torch.arange(length - count, length).expand(rows, count)
        output = self._model(
            input_ids=token_ids,
            attention_mask=torch.ones(rows, length, dtype=torch.int64),
            position_ids=positions,
            past_key_values=past,
            use_cache=True,
            **self._more(),
        )
        return output.logits[:, -1].argmax(-1, keepdim=True), output.past_key_values

    def _more(self) -> dict[str, Any]:
        return {}

    def _prompts(self, rows: int, length: int) -> Any:
        return torch.randint(VOCABULARY, (rows, length), generator=self._generator)
