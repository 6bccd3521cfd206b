"""The transformer of Stable Diffusion 3 and 3.5, `SD3Transformer2DModel`."""
