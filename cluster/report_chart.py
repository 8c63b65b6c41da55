"""What a chart is: traces and axes in plotly's terms, in colours named by role, with a table of its numbers.

A chart knows no colour: ``"--unique"`` names a variable of report.css, and report.js looks it up in the theme
that is on. A kind of memory has one colour in every chart. No text of a user's reaches plotly, which would
read tags in it; names of members are headings in HTML.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cluster.report_data import Floats, Ints
from cluster.report_numbers import digits
from shared.constants import GIB, KIB, MIB, NS_PER_S, PAGE_SIZE

Trace = dict[str, Any]
Values = npt.NDArray[Any]  # integers, or floats with NaN for "none"

MAX_POINTS: Final = 400  # of a curve
_TABLE_ROWS: Final = 8
_SIGNIFICANT: Final = 4
_WHOLE_FROM: Final = 1000.0
_TICK_SPACE_PX: Final = 8
_BAR_LABEL_PX: Final = 16
_DOT_PX: Final = 9
_ROOM_FOR_LABELS: Final = 1.2  # of the longest bar
_GAP: Final = 0.06  # between panels, of the chart's height
_TIME_UNITS: Final = ((900, 1, "s"), (4 * 3600, 60, "min"), (4 * 86400, 3600, "h"))  # up to, seconds, name
_DAY_S: Final = 86400


class Colour(StrEnum):
    """Roles, as variables of report.css."""

    KERNEL = "--kernel"
    UNIQUE = "--unique"
    MERGED = "--merged"
    FREE = "--free"
    SAVED_OTHER = "--saved-other"
    SAVED_ZERO = "--saved-zero"
    SWAPPED = "--swapped"
    INK = "--ink"
    ON_FILL = "--on-fill"  # text on an area


class Dash(StrEnum):
    """Strokes, so that colour is not all that tells curves apart."""

    SOLID = "solid"
    DASH = "dash"
    DOT = "dot"


@dataclass(frozen=True, slots=True)
class Axis:
    """Quantity, unit, and what a number of the samples is divided by to be in that unit."""

    label: str
    unit: str
    divisor: float = 1.0

    @property
    def title(self) -> str:
        """The axis's title."""
        return f"{self.label} ({self.unit})"

    def scaled(self, values: Values) -> Floats:
        """Return values in the axis's unit."""
        scaled: Floats = np.asarray(values, np.float64) / self.divisor
        return scaled


@dataclass(frozen=True, slots=True)
class Curve:
    """One named curve over the times of its chart."""

    name: str
    values: Values
    colour: Colour
    dash: Dash = Dash.SOLID


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves that share a vertical axis; ``stacked`` ones are areas on top of one another."""

    axis: Axis
    curves: Sequence[Curve]
    stacked: bool = False
    stepped: bool = False
    top: float | None = None  # of the axis, in its unit


@dataclass(frozen=True, slots=True)
class Table:
    """Headings and rows, all text."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Key:
    """An entry of a legend: which trace it stands for, and how that is drawn."""

    trace: int
    name: str
    colour: str
    stroke: str  # "fill" for an area, else a Dash


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure, what it shows in words, and its numbers."""

    title: str
    caption: str
    figure: dict[str, Any]  # plotly's data and layout
    table: Table
    legend: Sequence[Key] = ()
    height_px: int = 320


def time_axis(end_ns: int) -> Axis:
    """Return the axis of simulated time for a run of this length."""
    seconds = end_ns / NS_PER_S
    per_unit, unit = next(
        ((size, name) for limit, size, name in _TIME_UNITS if seconds <= limit), (_DAY_S, "days")
    )
    return Axis("simulated time", unit, per_unit * NS_PER_S)


def memory_axis(label: str, *pages: Values) -> Axis:
    """Return the axis of a memory size, for values in pages."""
    highest = max((float(np.max(values)) for values in pages if len(values)), default=0.0) * PAGE_SIZE
    size, unit = next(
        ((size, unit) for size, unit in ((GIB, "GiB"), (MIB, "MiB")) if highest >= size), (KIB, "KiB")
    )
    return Axis(label, unit, size / PAGE_SIZE)


def time_chart(title: str, caption: str, times: tuple[Ints, Axis], panels: Sequence[Panel]) -> Chart:
    """Draw panels below one another over one axis of time."""
    times_ns, x_axis = times
    x = x_axis.scaled(times_ns)
    data: list[Trace] = []
    legend: list[Key] = []
    layout: dict[str, Any] = {"xaxis": _x_axis(x_axis, len(panels))}
    height = 1.0 / len(panels)
    gap = _GAP if len(panels) > 1 else 0.0
    for number, panel in enumerate(panels, start=1):
        suffix = "" if number == 1 else str(number)
        bottom = 1.0 - number * height
        y_axis: dict[str, Any] = {
            "title": {"text": panel.axis.title, "standoff": _TICK_SPACE_PX},
            "domain": [bottom + (gap if number < len(panels) else 0.0), bottom + height],
            "rangemode": "tozero",
        }
        if panel.top is not None:
            y_axis |= {"range": [0, panel.top]}
        layout[f"yaxis{suffix}"] = y_axis
        if len(panel.curves) > 1:  # a single one is what its axis says
            legend += _keys(panel, first_trace=len(data))
        data += [_trace(curve, x, panel, f"y{suffix}") for curve in panel.curves]
    figure = {"data": data, "layout": layout}
    return Chart(title, caption, figure, _time_table(x_axis, x, panels), legend)


def bar_chart(title: str, caption: str, axis: Axis, bars: Sequence[tuple[str, float]]) -> Chart:
    """Draw horizontal bars, the first on top; values are in the axis's own unit before its divisor."""
    names = [name for name, _ in bars]
    lengths = axis.scaled(np.array([value for _, value in bars]))
    bar: Trace = {
        "type": "bar",
        "orientation": "h",
        "x": _numbers(lengths),
        "y": names,
        "text": [f"{digits(value)} {axis.unit}" for value in lengths],
        "textposition": "outside",
        "cliponaxis": False,
        "marker": {"color": Colour.MERGED},
        "hovertemplate": f"%{{y}}: %{{x:.4~g}} {axis.unit}<extra></extra>",
        "name": axis.label,
    }
    longest = float(lengths.max()) if len(lengths) else 0.0
    layout = {
        "xaxis": {
            "title": {"text": axis.title},
            "rangemode": "tozero",
            "range": [0, longest * _ROOM_FOR_LABELS or 1],
        },
        "yaxis": {
            "title": {"text": "used by the guests as", "standoff": _BAR_LABEL_PX},
            "autorange": "reversed",
            "showgrid": False,
        },
        "hovermode": "closest",
    }
    rows = [[name, number(value)] for name, value in zip(names, lengths, strict=True)]
    return Chart(title, caption, {"data": [bar], "layout": layout}, Table(["", axis.title], rows))


def number(value: float) -> str:
    """Write a number for a table: four significant digits, thousands apart, a dash for none."""
    if np.isnan(value):
        return "-"
    if abs(value) >= _WHOLE_FROM:
        return f"{value:,.0f}"
    return f"{value:.{_SIGNIFICANT}g}"


def _x_axis(axis: Axis, nr_panels: int) -> dict[str, Any]:
    anchor = "y" if nr_panels == 1 else f"y{nr_panels}"
    return {"title": {"text": axis.title}, "anchor": anchor, "rangemode": "tozero"}


def _trace(curve: Curve, x: Floats, panel: Panel, y_axis: str) -> Trace:
    trace: Trace = {
        "type": "scatter",
        "mode": "lines",
        "name": curve.name,
        "x": _numbers(x),
        "y": _numbers(panel.axis.scaled(curve.values)),
        "yaxis": y_axis,
        "line": {"color": curve.colour, "width": 0 if panel.stacked else 2, "dash": curve.dash},
        "hovertemplate": f"%{{y:,.4~g}} {panel.axis.unit}",
    }
    if panel.stacked:
        trace |= {"stackgroup": y_axis, "fillcolor": curve.colour}
    if panel.stepped:
        trace["line"]["shape"] = "hv"
    if len(x) == 1:  # no line yet
        trace |= {
            "mode": "markers",
            "marker": {"size": _DOT_PX, "color": curve.colour},
            "cliponaxis": False,
        }
    return trace


def _keys(panel: Panel, first_trace: int) -> list[Key]:
    return [
        Key(trace, curve.name, curve.colour, "fill" if panel.stacked else curve.dash)
        for trace, curve in enumerate(panel.curves, start=first_trace)
    ]


def _numbers(values: Floats) -> list[float | None]:
    """Return values for JSON, to six significant digits, with null for NaN."""
    return [None if np.isnan(value) else float(f"{value:.6g}") for value in values.tolist()]


def _time_table(x_axis: Axis, x: Floats, panels: Sequence[Panel]) -> Table:
    shown = np.unique(np.linspace(0, max(len(x) - 1, 0), min(len(x), _TABLE_ROWS)).astype(np.int64))
    headings = [f"time ({x_axis.unit})"]
    columns = [x]
    for panel in panels:
        headings += [f"{curve.name} ({panel.axis.unit})" for curve in panel.curves]
        columns += [panel.axis.scaled(curve.values) for curve in panel.curves]
    return Table(headings, [[number(column[at]) for column in columns] for at in shown])
