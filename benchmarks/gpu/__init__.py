"""Figures of a GPU: bandwidth, language models on CUDA and TensorRT, and how near they are."""
