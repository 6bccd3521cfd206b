"""How a Qwen3-Reranker is asked: its documented prompt, and the two tokens that answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from export.checkpoint import read_json_object
from export.errors import CheckpointError
from export.pooling.task import LOGIT_SCORE_FILE
from export.tokenizer_files import TOKENIZER_FILE

PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
    'the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
)
BODY = "<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"


@dataclass(frozen=True, slots=True)
class RerankPrompt:
    """The texts around a question, and the tokens whose logits answer it."""

    false_token_id: int
    true_token_id: int
    prefix: str = PREFIX
    body: str = BODY
    suffix: str = SUFFIX
    instruction: str = INSTRUCTION


def read_rerank_prompt(folder: Path) -> RerankPrompt:
    """The tokens that the checkpoint names, or else its tokenizer's "no" and "yes".

    Raises:
        CheckpointError: It has no such tokens, or scores by one alone.
    """
    path = folder / LOGIT_SCORE_FILE
    config = read_json_object(path) if path.is_file() else {}
    if config:
        no, yes = config.get("false_token_id"), config.get("true_token_id")
        if type(no) is not int or type(yes) is not int or min(no, yes) < 0:
            raise CheckpointError(f"{path} has to name a true_token_id and a false_token_id")
        return RerankPrompt(no, yes)
    tokenizer_file = folder / TOKENIZER_FILE
    if not tokenizer_file.is_file():
        raise CheckpointError(f"{folder} holds no {TOKENIZER_FILE}")
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    no, yes = (tokenizer.token_to_id(word) for word in ("no", "yes"))
    if no is None or yes is None:
        raise CheckpointError(
            f"{folder} cannot rerank: its tokenizer has no tokens 'no' and 'yes' to answer with"
        )
    return RerankPrompt(no, yes)
