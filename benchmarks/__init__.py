"""Measurements: a running server, an engine without HTTP, and peers side by side."""
