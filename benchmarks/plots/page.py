"""One HTML page with tables and plots that needs no other file and no network."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from benchmarks.plots.figure import Picture
from benchmarks.report import FigureTable

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1c1c1c; background: #fff; margin: 2rem auto;
  max-width: 72rem; padding: 0 1.5rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .6rem 0 1.4rem; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #e4e4e4; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
thead th { border-bottom: 2px solid #8a8a8a; }
figure { margin: 1rem 0 2rem; } img { max-width: 100%; height: auto; }
figcaption, dl { color: #555; font-size: .9rem; }
dl { display: grid; grid-template-columns: max-content auto; gap: .1rem 1rem; }
dt { font-weight: 600; } dd { margin: 0; }
"""


def write_page(
    path: Path,
    title: str,
    pictures: Sequence[Picture],
    tables: Sequence[FigureTable],
    facts: Mapping[str, str],
) -> None:
    """Write the page; pictures become part of it."""
    shown = "".join(map(_figure, pictures))
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    date = datetime.now(UTC).isoformat(timespec="seconds")
    path.write_text(
        "<!doctype html>\n"
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>"
        f"{shown}<h2>Figures</h2>{''.join(map(_table, tables))}"
        f"<h2>Measured on</h2><dl>{rows}<dt>date</dt><dd>{date}</dd></dl></body></html>\n",
        encoding="utf-8",
    )


def _figure(picture: Picture) -> str:
    encoded = base64.b64encode(picture.png).decode()
    caption = escape(picture.caption)
    return (
        f'<figure><img src="data:image/png;base64,{encoded}" alt="{caption}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _table(table: FigureTable) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    caption = f"<caption>{escape(table.title)}</caption>" if table.title else ""
    return (
        f'<div class="wide"><table>{caption}<thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
