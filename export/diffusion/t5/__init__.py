"""The text encoder `T5EncoderModel`."""
