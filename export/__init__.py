"""Compile a checkpoint into an engine: weights and config in, a folder with `engine.json` out."""
