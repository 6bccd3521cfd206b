"""The image engine: requests, noise schedulers and the denoising step."""
