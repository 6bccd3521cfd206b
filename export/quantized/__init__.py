"""Checkpoints whose weights are quantized already: their layouts, read without torch."""
