"""Run compiled engines: token ids or noise in, ids or pixels out. No text, no HTTP, no torch."""

__version__ = "0.1.0"
