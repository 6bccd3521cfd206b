"""Components of diffusion pipelines, drawn without torch: text encoders, UNet, autoencoder."""
