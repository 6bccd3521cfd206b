"""The transformer of FLUX.1, `FluxTransformer2DModel`."""
