"""Noise schedulers in numpy: one frozen schedule for an engine, one small stepper for a request."""
