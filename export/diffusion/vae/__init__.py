"""The autoencoder between pictures and latents, `AutoencoderKL`."""
