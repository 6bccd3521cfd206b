"""Checkpoints whose decoder is read to the end of a text: embeddings and rerankers."""
