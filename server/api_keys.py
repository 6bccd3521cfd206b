"""Files of API keys."""

from __future__ import annotations

from pathlib import Path


def read_keys(path: Path) -> list[str]:
    """One key a line; empty lines and lines that begin with # are passed over.

    Raises:
        ValueError: The file cannot be read, or holds no key.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the API keys in {path} cannot be read: {error}") from None
    keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not keys:
        raise ValueError(f"the file {path} holds no API key: write one a line")
    return keys
