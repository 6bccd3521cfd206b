"""Generates the demo's text, trains its tokenizer and model, and measures what it learned."""
