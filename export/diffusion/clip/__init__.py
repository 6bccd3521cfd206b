"""The text encoders, `CLIPTextModel` with and without a projection."""
