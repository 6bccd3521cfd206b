"""Text on both sides of an engine: chat templates and tokens in, detokenized deltas out."""
