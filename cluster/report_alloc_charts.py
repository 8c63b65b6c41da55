"""The charts of a machine that replays allocation traces: paths, cycles, memory, and how free memory lies.

which way allocations went       of each span, in percent: fast, own, shared, grow (node/alloc_paths.py)
what an operation costs          cycles of an allocation and of a free, means of each span
memory taken and asked for       the objects' bytes, with rounding, and the frames that hold them
free blocks by order             as /proc/buddyinfo, in memory
free memory that is of no use    the unusable free space index, for some orders
"""

from typing import Final

import numpy as np

from cluster.report_chart import Axis, Chart, Colour, Curve, Dash, Panel, memory_axis, time_chart
from cluster.report_data import Floats, History, Ints
from cluster.report_numbers import SPACE, as_percent, as_size
from shared.constants import PAGE_SIZE

_ALL: Final = 100  # percent
_THOUSANDTHS: Final = 1000
_WAYS: Final = (
    ("fast", Colour.UNIQUE),
    ("own", Colour.MERGED),
    ("shared", Colour.SAVED_OTHER),
    ("grow", Colour.SWAPPED),
)
# Orders of free blocks that share a curve, and of the index.
_ORDER_GROUPS: Final = (
    ("order 0", (0,), Colour.SWAPPED),
    ("orders 1 to 3", (1, 2, 3), Colour.SAVED_OTHER),
    ("orders 4 to 8", (4, 5, 6, 7, 8), Colour.MERGED),
    ("orders 9 and 10", (9, 10), Colour.UNIQUE),
)
_INDEXED: Final = (
    (1, Colour.SWAPPED, Dash.SOLID),
    (3, Colour.SAVED_OTHER, Dash.DASH),
    (6, Colour.MERGED, Dash.DOT),
    (9, Colour.UNIQUE, Dash.DASH),
    (10, Colour.INK, Dash.SOLID),
)
_HUGE_ORDER: Final = 9  # of a 2 MiB page


def alloc_charts(history: History, axis: Axis) -> list[Chart]:
    """Return the charts of a machine's allocation traces; none if it has none."""
    if not history.last("alloc_count"):
        return []
    return [
        *_paths(history, axis),
        _cycles(history, axis),
        _memory(history, axis),
        _free_blocks(history, axis),
        _unusable(history, axis),
    ]


def _share(parts: Ints, of: Ints) -> Floats:
    shares: Floats = np.divide(parts * float(_ALL), of, out=np.full(len(parts), np.nan), where=of > 0)
    return shares


def _paths(history: History, axis: Axis) -> list[Chart]:
    panels = []
    for kind, label in (("alloc", "allocations"), ("free", "frees")):
        rises = {way: history.rises(f"{kind}_path_{way}") for way, _ in _WAYS}
        total = np.sum(list(rises.values()), axis=0)
        if total.any():
            curves = [
                Curve(way, _share(rises[way], total), colour) for way, colour in _WAYS if rises[way].any()
            ]
            panels.append(Panel(Axis(label, "%"), curves, stacked=True, top=_ALL))
    if not panels:
        return []
    last = {way: history.last(f"alloc_path_{way}") + history.last(f"free_path_{way}") for way, _ in _WAYS}
    without_lock = (last["fast"] + last["own"]) / max(sum(last.values()), 1)
    caption = (
        f"{sum(last.values()):,} allocations and frees of objects; {as_percent(without_lock)} of them took no lock that"
        f" CPUs share (fast, own), {last['grow']:,} needed frames first (grow)."
    )
    return [time_chart("Which way allocations went", caption, (history.times_ns, axis), panels)]


def _cycles(history: History, axis: Axis) -> Chart:
    kinds = (
        ("an allocation", "alloc_cycles", "alloc_count", Colour.UNIQUE, Dash.SOLID),
        ("a free", "alloc_free_cycles", "alloc_free_count", Colour.SWAPPED, Dash.DASH),
    )
    curves = []
    told = []
    for name, cycles, counter, colour, dash in kinds:
        counts = history.rises(counter)
        mean = np.divide(
            history.rises(cycles).astype(np.float64),
            counts,
            out=np.full(len(counts), np.nan),
            where=counts > 0,
        )
        curves.append(Curve(name, mean, colour, dash))
        told.append(f"{name} took {history.last(cycles) / max(history.last(counter), 1):.0f} cycles")
    caption = f"On average {' and '.join(told)}, waiting for memory included."
    failed = history.last("alloc_failures")
    if failed:
        caption += f" {failed:,} allocations failed."
    panel = Panel(Axis("cost", "cycles"), curves)
    return time_chart("What an operation costs", caption, (history.times_ns, axis), [panel])


def _memory(history: History, axis: Axis) -> Chart:
    asked, taken, held = (
        history.level(f"alloc_{name}_bytes") / PAGE_SIZE for name in ("asked", "taken", "held")
    )
    curves = [
        Curve("asked for", asked, Colour.UNIQUE),
        Curve("taken by the objects", taken, Colour.SAVED_OTHER, Dash.DASH),
        Curve("held in frames", held, Colour.SWAPPED, Dash.DOT),
    ]
    last_asked = history.last("alloc_asked_bytes")
    over = (history.last("alloc_held_bytes") - last_asked) / last_asked if last_asked else 0.0
    caption = (
        f"At the end {as_size(round(asked[-1]))} are asked for, objects are rounded up to {as_size(round(taken[-1]))},"
        f" and the frames that hold them are {as_size(round(held[-1]))}: {as_percent(over)} more than asked for."
    )
    panel = Panel(memory_axis("memory", held, taken), curves)
    return time_chart("Memory taken and asked for", caption, (history.times_ns, axis), [panel])


def _free_blocks(history: History, axis: Axis) -> Chart:
    curves = []
    for name, orders, colour in _ORDER_GROUPS:
        pages = np.sum([history.level(f"buddy_order_{order}") << order for order in orders], axis=0)
        curves.append(Curve(name, pages, colour))
    total = np.sum([curve.values for curve in curves], axis=0)
    caption = (
        f"Free memory by the size of its blocks; {as_size(int(curves[-1].values[-1]))} of"
        f" {as_size(int(total[-1]))} are blocks from which a 2{SPACE}MiB page can be made."
    )
    panel = Panel(memory_axis("free", total), curves, stacked=True)
    return time_chart("Free blocks by order", caption, (history.times_ns, axis), [panel])


def _unusable(history: History, axis: Axis) -> Chart:
    curves = [
        Curve(f"order {order}", history.level(f"unusable_order_{order}"), colour, dash)
        for order, colour, dash in _INDEXED
    ]
    index = history.last(f"unusable_order_{_HUGE_ORDER}") / _THOUSANDTHS
    caption = (
        f"Of the free memory, the part in blocks that are too small for a request of the order (unusable free space"
        f" index); at the end {as_percent(index)} for order {_HUGE_ORDER}."
    )
    panel = Panel(Axis("unusable", "%", _THOUSANDTHS / _ALL), curves, top=_ALL)
    return time_chart("Free memory that is of no use", caption, (history.times_ns, axis), [panel])
