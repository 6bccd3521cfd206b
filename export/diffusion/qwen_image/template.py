"""The words around a prompt: the language model is asked to describe the picture."""

from __future__ import annotations

PREFIX = (
    "<|im_start|>system\n"
    "Describe the image by detailing the color, shape, size, texture, quantity, text, spatial "
    "relationships of the objects and background:<|im_end|>\n"
    "<|im_start|>user\n"
)
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n"

# Rows of the prefix, which say nothing of the prompt; the pipeline counts them so for every
# tokenizer.
NUM_DROPPED_ROWS = 34
MAX_ROWS = 512  # of prompt and suffix; the pipeline cuts what is behind
MAX_TOKENS = NUM_DROPPED_ROWS + MAX_ROWS
