"""What the server itself costs a token: everything but the model, which is left out."""
