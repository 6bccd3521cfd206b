"""Serve compiled engines over the OpenAI API. HTTP and text; no model code and no torch."""
