"""The wire: one Struct for each object that OpenAI clients send and receive."""
