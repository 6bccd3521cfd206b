"""The Qwen decoders: one definition of the graph, a table of families."""
