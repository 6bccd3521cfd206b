"""Run compiled engines: token ids or noise in, ids or pixels out. No text, no HTTP, no torch."""
