"""Chat checkpoints of published shapes with random weights, for measurements without downloads."""
