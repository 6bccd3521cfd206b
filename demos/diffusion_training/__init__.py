"""Draws captioned pictures, and trains and measures the demo's diffusion checkpoint on them."""
