"""What `engine.json` says of models that read a text and give one row of numbers for it."""

from __future__ import annotations

import msgspec


class CacheSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Keys and values of each layer; a slot's are `[heads, max_context, width]` float32.

    The graph's inputs are `past_key_values.{layer}.key` and `.value`, its outputs
    `present.{layer}.key` and `.value`, bound to the same memory.
    """

    num_layers: int
    heads: int
    width: int


class PoolingSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What the runner and the server must know of a graph that reads texts to their ends."""

    graph: str  # file name of the graph, for example model.onnx
    output: str  # its output, [R, output_width] float32
    output_width: int
    num_tokens: int  # ids the tokenizer knows
    max_context: int  # tokens of a text
    cache: CacheSpec
    num_parameters: int


class EmbeddingSpec(PoolingSpec, frozen=True, kw_only=True):
    """A text is embedded as the state of its last token, scaled to length 1."""


class RerankSpec(PoolingSpec, frozen=True, kw_only=True):
    """A document's relevance is the softmax over the logits of "no" and "yes", in that order.

    The prompt is `prefix`, `body` with the three texts in place of `{instruction}`, `{query}` and
    `{document}`, and `suffix`. Special tokens count in the prefix and the suffix alone.
    """

    prefix: str
    body: str
    suffix: str
    instruction: str  # of requests that give none
    false_token_id: int
    true_token_id: int


class EmbeddingVerification(msgspec.Struct, frozen=True, kw_only=True):
    """The embeddings of fixed texts against those of the reference, in fp32."""

    reference: str  # for example "transformers 5.23.0 fp32" or "engine fp32"
    num_texts: int
    mean_cosine: float  # of an embedding and its reference; 1 for the same direction
    min_cosine: float
    max_error: float  # of a number of an embedding
    seconds: float


class RerankVerification(msgspec.Struct, frozen=True, kw_only=True):
    """The relevance of fixed documents against that by the reference, in fp32."""

    reference: str
    num_pairs: int
    mean_score_error: float
    max_score_error: float  # scores run from 0 to 1
    seconds: float
