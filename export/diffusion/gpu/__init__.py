"""Graphs for GPUs: in half precision, and for TensorRT in standard operators only."""
