"""The charts of a host and its guests: which curves, in which units, and one sentence each on what to see.

RAM by kind, the guests' memory by kind, what merging saves, ksmd's pages and pace, swap traffic, which page
classes were merged; then a small chart a guest. What a run has no numbers of is left out; ``report.py`` says
so in a sentence where that matters.
"""

from dataclasses import replace
from typing import Final

import numpy as np

from cluster.report_chart import (
    MAX_POINTS,
    Axis,
    Chart,
    Colour,
    Curve,
    Panel,
    bar_chart,
    memory_axis,
    time_axis,
    time_chart,
)
from cluster.report_data import History, RunData
from cluster.report_figures import PERCENTS, memory_of, stalled_percent, time_to_percent
from cluster.report_kernel_charts import STALLED, ksm_charts, last_size, swap_charts
from cluster.report_numbers import SPACE, as_percent, as_size, as_time

CLASS_PREFIX: Final = "merged_class."
_SMALL_PX: Final = 270
_HEADROOM: Final = 1.05  # above the highest value of charts that share a scale
_LEFT_THIRD: Final = 0.33  # of the time axis: labels of points there go to their right
_CLASS_NAMES: Final = {
    "file": "page cache",
    "anon": "anonymous",
    "anon_thp": "anonymous, huge",
    "slab": "slab",
    "free": "free in the guest",
    "reserved": "kernel image, memmap",
    "pgtable": "page tables",
    "shmem": "shared memory",
    "kernel_other": "other kernel",
    "zero_page": "the guest's zero page",
    "nopage": "never used",
    "unknown": "not recorded",
}


def host_charts(run: RunData, host: str) -> list[Chart]:
    """Return the charts of a host; none if it has no samples."""
    full = run.history(host)
    if not len(full.times_ns):
        return []
    history, axis = full.thinned(MAX_POINTS), time_axis(run.end_ns)
    nr_guests = len(run.guests_of(host))
    charts = [
        _ram(history, axis, nr_guests),
        _guest_memory(history, axis, nr_guests),
        _saving(full, axis, nr_guests),
        *ksm_charts(history, axis),
        *swap_charts(history, axis),
        *_classes(history),
    ]
    return charts


def _ram(history: History, axis: Axis, nr_guests: int) -> Chart:
    memory = memory_of(history, nr_guests)
    curves = [
        Curve("kernel, page tables", memory.kernel, Colour.KERNEL),
        Curve("unique", memory.unique, Colour.UNIQUE),
        Curve("merged", memory.merged, Colour.MERGED),
        Curve("free", memory.free, Colour.FREE),
    ]
    caption = (
        f"At the end {last_size(memory.unique)} hold pages that are like no other,"
        f" {last_size(memory.merged)} hold merged pages, one copy for all who have them,"
        f" and {last_size(memory.free)} are free."
    )
    managed = history.level("managed_pages")
    panel = Panel(memory_axis("host memory", managed, memory.unique), curves, stacked=True)
    return time_chart("What is in the host's memory", caption, (history.times_ns, axis), [panel])


def _guest_memory(history: History, axis: Axis, nr_guests: int) -> Chart:
    memory = memory_of(history, nr_guests)
    curves = [
        Curve("unique", memory.unique, Colour.UNIQUE),
        Curve("merged, the copy kept", memory.merged, Colour.MERGED),
        Curve("saved: equal pages", memory.saved_other, Colour.SAVED_OTHER),
        Curve("saved: zero pages", memory.saved_zero, Colour.SAVED_ZERO),
        Curve("swapped", memory.swapped, Colour.SWAPPED),
    ]
    caption = (
        f"The guests have {last_size(memory.needed)}. Merging saves {last_size(memory.saved)} of it,"
        f" {last_size(memory.saved_zero)} from pages of zeroes; {last_size(memory.swapped)} are in swap."
    )
    panel = Panel(memory_axis("guests' memory", memory.needed), curves, stacked=True)
    return time_chart("What the guests have, and where it is", caption, (history.times_ns, axis), [panel])


def _saving(full: History, axis: Axis, nr_guests: int) -> Chart:
    """Draw the saving, with the points where each of ``PERCENTS`` of its end was reached."""
    memory, drawn = memory_of(full, nr_guests), memory_of(full.thinned(MAX_POINTS), nr_guests)
    y_axis = memory_axis("memory saved", memory.saved)
    curves = [
        Curve("from equal pages", drawn.saved_other, Colour.SAVED_OTHER),
        Curve("from zero pages", drawn.saved_zero, Colour.SAVED_ZERO),
    ]
    reached = [(percent, time_to_percent(full.times_ns, memory.saved, percent)) for percent in PERCENTS]
    told = [f"{percent}{SPACE}% after {as_time(time)}" for percent, time in reached if time is not None]
    caption = "Of the final saving, " + ", ".join(told) + "." if told else "Nothing was saved."
    panel = Panel(y_axis, curves, stacked=True)
    chart = time_chart("How fast memory comes back", caption, (drawn.times_ns, axis), [panel])
    for percent, time in reached:
        if time is not None:
            at = int(np.searchsorted(full.times_ns, time))
            x, y = time / axis.divisor, float(y_axis.scaled(memory.saved)[at])
            early = time < _LEFT_THIRD * int(full.times_ns[-1])
            chart.figure["data"].append(_mark(f"{percent} %", x, y, early=early))
    return chart


def _mark(label: str, x: float, y: float, *, early: bool) -> dict[str, object]:
    return {
        "type": "scatter",
        "mode": "markers+text",
        "x": [x],
        "y": [y],
        "text": [label],
        "textposition": "bottom right" if early else "top left",
        "textfont": {"color": Colour.ON_FILL if early else Colour.INK},
        "marker": {"color": Colour.INK, "size": 7},
        "cliponaxis": False,
        "hoverinfo": "skip",
    }


def _classes(history: History) -> list[Chart]:
    classes = [(name, history.last(f"{CLASS_PREFIX}{name}")) for name in history.family(CLASS_PREFIX)]
    bars = sorted(
        ((_CLASS_NAMES.get(name, name.replace("_", " ")), pages) for name, pages in classes if pages > 0),
        key=lambda bar: -bar[1],
    )
    if not bars:
        return []
    all_pages = sum(pages for _, pages in bars)
    first, most = bars[0]
    caption = f"At the end {as_percent(most / all_pages)} of the merged pages are, to their guests, {first}."
    axis = memory_axis("merged memory of the guests", np.array([most]))
    return [bar_chart("What the merged pages were", caption, axis, bars)]


def guest_charts(run: RunData, host: str, guests: list[str]) -> dict[str, Chart]:
    """Return a small chart for each of ``guests``, on one scale: memory by kind, and the time it stalled."""
    full, axis = run.history(host), time_axis(run.end_ns)
    if not len(full.times_ns):
        return {}
    history = full.thinned(MAX_POINTS)
    everyone = run.guests_of(host)
    kinds = {name: _guest_kinds(history, everyone.index(name)) for name in guests}
    own = {name: run.history(name).at(history.times_ns) for name in guests}
    stalls = {name: stalled_percent(own[name]) for name in guests}
    tops = [np.sum([curve.values for curve in curves], axis=0) for curves in kinds.values()]
    y_axis = memory_axis("memory", *tops)
    top = max(float(y_axis.scaled(values).max()) for values in tops) * _HEADROOM
    longest = max(float(np.nan_to_num(stalled).max()) for stalled in stalls.values()) * _HEADROOM
    charts = {}
    for name in guests:
        panels = [
            Panel(y_axis, kinds[name], stacked=True, top=top or 1),
            Panel(STALLED, [Curve("stalled", stalls[name], Colour.INK)], top=longest or 1),
        ]
        last = [(curve.name, int(curve.values[-1])) for curve in kinds[name]]
        caption = ", ".join(f"{as_size(pages)} {kind}" for kind, pages in last if pages) or "no memory"
        caption += f"; stalled {as_time(own[name].last('stall_ns'))}"
        title = name.removeprefix(f"{host}.")
        chart = time_chart(title, caption, (history.times_ns, axis), panels)
        charts[name] = replace(chart, legend=(), height_px=_SMALL_PX)  # one legend serves all
    return charts


def _guest_kinds(history: History, guest: int) -> list[Curve]:
    resident, merged, swapped, zero = (
        history.level(f"guest.{guest}.{kind}_pages") for kind in ("rss", "ksm", "swapped", "zero")
    )
    return [
        Curve("unique", np.maximum(resident - merged, 0), Colour.UNIQUE),
        Curve("merged", merged, Colour.MERGED),
        Curve("zero page", zero, Colour.SAVED_ZERO),
        Curve("swapped", swapped, Colour.SWAPPED),
    ]
