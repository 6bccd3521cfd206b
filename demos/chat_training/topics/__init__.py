"""One module for each thing the demo can do; each draws turns from a seeded random generator."""
