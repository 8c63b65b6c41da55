"""The report's HTML: one file that loads nothing.

    Page().add(...)  pieces of HTML, made by the functions below, and charts
    Page.html()      head, style, pieces, figures as JSON, plotly.js once, the script that draws

A content security policy forbids the browser to fetch anything, so that "offline" is enforced and not just
meant. All text passes ``text``; figures are JSON in which no tag can close.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Final

from cluster.report_chart import Chart, Table
from cluster.report_numbers import SPACE

_HERE: Final = Path(__file__).resolve().parent
_STYLE: Final = _HERE / "report.css"
_SCRIPT: Final = _HERE / "report.js"
_MEMORY_SCRIPT: Final = _HERE / "report_memory.js"
_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)
_QUANTITY: Final = re.compile(rf"[0-9][0-9.,]*{SPACE}[A-Za-z%]+")
_HEAD: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="pagefleet">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
"""


def text(value: object) -> str:
    """Return anything as HTML that shows it literally."""
    return escape(str(value), quote=True)


class Page:
    """A page under construction."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._pieces: list[str] = []
        self._figures: dict[str, object] = {}
        self._pictures: dict[str, object] = {}

    def add(self, *pieces: str) -> None:
        """Add pieces of HTML."""
        self._pieces.extend(pieces)

    def add_charts(self, charts: Iterable[Chart], *, small: bool = False) -> None:
        """Add charts side by side, as many in a row as there is room for."""
        cards = "\n".join(self._card(chart, small=small) for chart in charts)
        self.add(f'<div class="grid{" small" if small else ""}">\n{cards}\n</div>')

    def add_picture(self, make_html: Callable[[str], str], data: object) -> None:
        """Add what ``make_html`` makes of the name under which report_memory.js finds ``data``."""
        name = f"picture-{len(self._pictures)}"
        self._pictures[name] = data
        self.add(make_html(name))

    def _card(self, chart: Chart, *, small: bool) -> str:
        name = f"chart-{len(self._figures)}"
        self._figures[name] = chart.figure
        label = text(f"Chart: {chart.title}. {chart.caption}")
        numbers = table(chart.table, label=f"Numbers of the chart: {chart.title}")
        return (
            f'<figure class="card"><figcaption><h3>{text(chart.title)}</h3>'
            f"<p>{text(chart.caption)}</p>{_switches(name, chart)}</figcaption>"
            f'<div class="chart" id="{name}" role="img" aria-label="{label}"'
            f' data-height="{chart.height_px}" style="min-height:{chart.height_px}px"></div>'
            f"<details><summary>Numbers</summary>{numbers}</details></figure>"
        )

    def html(self) -> str:
        """Return the whole page."""
        from plotly.offline import get_plotlyjs

        head = _HEAD.format(policy=_POLICY, title=text(self.title), style=_STYLE.read_text(encoding="utf-8"))
        scripts = [
            _data("figures", self._figures),
            f"<script>{get_plotlyjs()}</script>",
            f"<script>\n{_SCRIPT.read_text(encoding='utf-8')}</script>",
        ]
        if not self._figures:
            scripts = []
        if self._pictures:
            drawing = f"<script>\n{_MEMORY_SCRIPT.read_text(encoding='utf-8')}</script>"
            scripts += [_data("pictures", self._pictures), drawing]
        return head + "\n".join([*self._pieces, *scripts, "</body>", "</html>", ""])


def _data(name: str, content: object) -> str:
    """Return a script element that holds data."""
    packed = json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{packed}</script>'


def heading(title: str, note: str = "") -> str:
    """Return the heading of a section, with a line below it."""
    return f"<h2>{text(title)}</h2>" + (f'<p class="soft">{text(note)}</p>' if note else "")


def paragraph(words: str) -> str:
    """Return a sentence between charts."""
    return f'<p class="soft">{text(words)}</p>'


def answer_paragraph(words: str) -> str:
    """Return the answer, its quantities in bold: they are what has a unit behind an unbreakable space."""
    told = _QUANTITY.sub(r"<strong>\g<0></strong>", text(words))
    return f'<p class="answer">{told}</p>'


def tiles(figures: Sequence[tuple[str, str]]) -> str:
    """Return the row of large numbers: (number, what it is)."""
    items = "".join(
        f'<li class="tile"><b>{text(number)}</b><span>{text(label)}</span></li>' for number, label in figures
    )
    return f'<ul class="tiles">{items}</ul>'


def warning(title: str, lines: Sequence[str]) -> str:
    """Return a box that nobody overlooks."""
    body = "".join(f"<p>{text(line)}</p>" for line in lines)
    return f'<div class="warning" role="alert"><strong>{text(title)}</strong>{body}</div>'


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """Return a legend for several charts: (colour's role, name)."""
    items = "".join(f"<li>{_swatch(role, 'fill')}{text(name)}</li>" for role, name in entries)
    return f'<ul class="legend" aria-label="Colours">{items}</ul>'


def _switches(chart_name: str, chart: Chart) -> str:
    """Return a chart's legend, each entry a switch that shows and hides its curve."""
    items = "".join(
        f'<li><button type="button" aria-pressed="true" data-chart="{chart_name}" data-trace="{key.trace}">'
        f"{_swatch(key.colour, key.stroke)}{text(key.name)}</button></li>"
        for key in chart.legend
    )
    return f'<ul class="legend" aria-label="Curves, to show or hide">{items}</ul>' if items else ""


def _swatch(role: str, stroke: str) -> str:
    return f'<i class="{text(stroke)}" style="--swatch:var({text(role)})"></i>'


def table(content: Table, *, label: str, words: bool = False) -> str:
    """Return a table; one of ``words`` aligns to the left and breaks lines."""
    cells = "".join(f'<th scope="col">{text(cell)}</th>' for cell in content.headings)
    head = f"<thead><tr>{cells}</tr></thead>" if cells else ""
    rows = "".join(
        f'<tr><th scope="row">{text(row[0])}</th>{"".join(f"<td>{text(cell)}</td>" for cell in row[1:])}</tr>'
        for row in content.rows
    )
    kind = ' class="text"' if words else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{text(label)}">'
        f"<table{kind}>{head}<tbody>{rows}</tbody></table></div>"
    )


def panel(content: str) -> str:
    """Return content on a card of its own."""
    return f'<div class="panel">{content}</div>'


def folded(title: str, content: str, *, is_open: bool = False) -> str:
    """Return content behind a title that opens it."""
    opened = " open" if is_open else ""
    return f'<details class="block"{opened}><summary>{text(title)}</summary>{content}</details>'
