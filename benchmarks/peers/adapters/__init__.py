"""One process for each peer: it loads a model, measures it and answers in one JSON line."""
