"""One run beside another: their figures with the differences, the settings that differ, and curves overlaid.

The curves are sums over all hosts and machines, so runs of fleets of other shapes compare too. This run is
drawn solid, the other dashed.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np

from cluster.report_chart import (
    MAX_POINTS,
    Axis,
    Chart,
    Colour,
    Curve,
    Dash,
    Panel,
    Table,
    memory_axis,
    time_axis,
    time_chart,
)
from cluster.report_data import History, Ints, RunData
from cluster.report_figures import PERCENTS, Figures, figures_of, memory_of, total
from cluster.report_numbers import SPACE, as_size, as_time
from cluster.report_settings import flat_settings
from cluster.summary import format_ratio
from shared.constants import NS_PER_S

Series = tuple[Ints, Ints]  # times in ns, values

NONE: Final = "none"
_PERCENT: Final = 100


def _seconds(*_values: Ints) -> Axis:
    return Axis("time stalled", "s", NS_PER_S)


def difference_table(this: RunData, other: RunData) -> Table:
    """Return the figures of both runs and by how much this one differs."""
    mine, theirs = figures_of(this), figures_of(other)
    rows = [_row(label, as_size, get(mine), get(theirs)) for label, get in _SIZES]
    for percent in PERCENTS:
        pair = mine.time_to_ns[percent], theirs.time_to_ns[percent]
        rows.append(_row(f"time to {percent}{SPACE}% of the saving", as_time, *pair))
    slowdowns = [figures.worst.slowdown if figures.worst else None for figures in (mine, theirs)]
    rows.append(_row("largest slowdown", format_ratio, *slowdowns))
    rows.append(_row("guests killed for memory", str, mine.nr_killed, theirs.nr_killed))
    rows.append(_row("simulated time", as_time, this.end_ns, other.end_ns))
    return Table(["", "this run", "the other", "difference"], rows)


_SIZES: Final[tuple[tuple[str, Callable[[Figures], int]], ...]] = (
    ("guests' memory", lambda figures: figures.needed_pages),
    ("saved by merging", lambda figures: figures.saved_pages),
    ("of it from zero pages", lambda figures: figures.saved_zero_pages),
    ("swapped out", lambda figures: figures.swapped_out_pages),
    ("swapped in", lambda figures: figures.swapped_in_pages),
    ("in swap at the end", lambda figures: figures.in_swap_pages),
)


def setting_table(this: RunData, other: RunData) -> Table:
    """Return the settings that differ."""
    mine, theirs = flat_settings(this.manifest["scenario"]), flat_settings(other.manifest["scenario"])
    keys = [*mine, *(key for key in theirs if key not in mine)]
    rows = [
        [key, mine.get(key, NONE), theirs.get(key, NONE)] for key in keys if mine.get(key) != theirs.get(key)
    ]
    return Table(["setting", "this run", "the other"], rows)


def overlay_charts(this: RunData, other: RunData) -> list[Chart]:
    """Return the charts in which both runs are drawn; without those that would show nothing."""
    charts = []
    for title, caption, series_of, axis_of in _OVERLAYS:
        pair = series_of(this), series_of(other)
        if any(values.any() for _, values in pair):
            axis = axis_of(*(values for _, values in pair))
            charts.append(_overlay((title, caption), pair, axis, max(this.end_ns, other.end_ns)))
    return charts


def _overlay(words: tuple[str, str], pair: tuple[Series, Series], axis: Axis, end_ns: int) -> Chart:
    times = np.unique(np.concatenate([times for times, _ in pair]))
    if len(times) > MAX_POINTS:
        times = times[np.unique(np.linspace(0, len(times) - 1, MAX_POINTS).astype(np.int64))]
    curves = []
    for (own_times, values), name, dash, colour in zip(pair, _NAMES, _DASHES, _COLOURS, strict=True):
        drawn = History(own_times, {name: values}).at(times).level(name).astype(np.float64)
        if len(own_times):
            drawn[(times < own_times[0]) | (times > own_times[-1])] = np.nan
        curves.append(Curve(name, drawn, colour, dash))
    return time_chart(*words, (times, time_axis(end_ns)), [Panel(axis, curves)])


def _saved(run: RunData) -> Series:
    memories = [memory_of(run.history(host), len(run.guests_of(host))) for host in run.of_kind("host")]
    return total([(memory.times_ns, memory.saved) for memory in memories])


def _in_use(run: RunData) -> Series:
    histories = [run.history(name) for name in run.of_kind("host") + run.of_kind("machine")]
    return total(
        [
            (history.times_ns, history.level("managed_pages") - history.level("nr_free_pages"))
            for history in histories
        ]
    )


def _in_swap(run: RunData) -> Series:
    histories = [run.history(name) for name in run.of_kind("host") + run.of_kind("machine")]
    return total([(history.times_ns, history.level("nr_swap_used")) for history in histories])


def _waited(run: RunData) -> Series:
    histories = [run.history(member["name"]) for member in run.members if member["kind"] != "host"]
    return total([(history.times_ns, history.level("stall_ns")) for history in histories])


_NAMES: Final = ("this run", "the other")
_DASHES: Final = (Dash.SOLID, Dash.DASH)
_COLOURS: Final = (Colour.UNIQUE, Colour.SWAPPED)
_OVERLAYS: Final = (
    ("Memory saved", "What merging saves, over all hosts.", _saved, partial(memory_axis, "memory saved")),
    ("Memory in use", "All that is not free, over all.", _in_use, partial(memory_axis, "memory in use")),
    ("Swap in use", "Over all hosts and machines.", _in_swap, partial(memory_axis, "swap in use")),
    ("Time spent waiting", "Summed over all guests and machines, since the start.", _waited, _seconds),
)


def _row(label: str, write: Callable[[Any], str], mine: float | None, theirs: float | None) -> list[str]:
    cells = [NONE if value is None else write(value) for value in (mine, theirs)]
    if mine is None or theirs is None:
        return [label, *cells, "-"]
    if mine == theirs:
        return [label, *cells, "equal"]
    sign = "+" if mine > theirs else "\u2212"
    change = f" ({sign}{abs(mine - theirs) / theirs * _PERCENT:.1f}{SPACE}%)" if theirs else ""
    return [label, *cells, f"{sign}{write(abs(mine - theirs))}{change}"]
