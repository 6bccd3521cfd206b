"""The demo checkpoints and the scripts that made them."""
