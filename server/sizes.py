"""Sizes in bytes as people write them."""

from __future__ import annotations

import re

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


def parse_size(text: str) -> int:
    """Bytes of a size such as `512MiB`, `4GiB`, `2GB` or `1048576`.

    Raises:
        ValueError: It is not a number with a unit of these.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]I?)?B?\s*", text.upper())
    if match is None:
        raise ValueError(f"{text!r} is not a size: write bytes, or a unit as in 512MiB or 4GiB")
    return int(float(match[1]) * _UNITS[match[2] or ""])


def show_size(num_bytes: int) -> str:
    """The inverse of `parse_size`, in the largest unit that divides the size."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if num_bytes >= factor and num_bytes % factor == 0:
            return f"{num_bytes // factor}{unit}"
    return str(num_bytes)
