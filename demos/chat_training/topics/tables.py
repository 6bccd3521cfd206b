"""Reads the word lists and tables below `demos/chat_training/data`."""

import json
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent.parent / "data"


def read_table(name: str) -> Any:
    """The content of `data/<name>.json`."""
    return json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
