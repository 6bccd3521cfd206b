"""What stands behind `/v1/responses`: conversations of items, what is kept, how it is told."""
