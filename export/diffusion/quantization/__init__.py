"""Int8 for image models: which layers, what ranges their inputs have, and what it costs."""
