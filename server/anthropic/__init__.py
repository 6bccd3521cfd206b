"""What stands behind `/v1/messages`: conversations, answers and errors in Anthropic's shape."""
