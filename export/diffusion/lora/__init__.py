"""LoRA files: read in any of their spellings, and added to a checkpoint while it is read."""
