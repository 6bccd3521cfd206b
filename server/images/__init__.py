"""Pictures: prompts to token ids, uploads to pixels, pixels to files, and what was asked for."""
