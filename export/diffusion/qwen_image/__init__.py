"""The components of Qwen-Image: its language model as text encoder, transformer, autoencoder."""
