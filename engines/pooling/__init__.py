"""The engine of embeddings and relevance scores: token ids in, one row of numbers out."""
