"""LoRA files, and the sums of their matrices and a checkpoint's: for language and image models."""
