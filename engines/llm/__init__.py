"""The language-model engine: sequences, sampling, the KV cache, the scheduler and the step."""
