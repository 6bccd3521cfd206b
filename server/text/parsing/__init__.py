"""Parsers of what a model writes: reasoning, text and tool calls, however it comes in pieces."""
