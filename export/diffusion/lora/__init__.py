"""LoRA files for image checkpoints: which module a key means, in any of their spellings."""
