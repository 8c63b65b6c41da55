"""The charts that any simulated kernel may have, a host's or a plain machine's: KSM, swap, and waiting."""

from typing import Final

from cluster.report_chart import Axis, Chart, Colour, Curve, Dash, Panel, memory_axis, time_chart
from cluster.report_data import History, Ints
from cluster.report_numbers import as_size
from shared.constants import MIB, PAGE_SIZE

STALLED: Final = Axis("stalled", "%")
_MIB_PER_S: Final = Axis("traffic", "MiB/s", MIB / PAGE_SIZE)
_THOUSAND: Final = 1000


def ksm_charts(history: History, axis: Axis) -> list[Chart]:
    """Return the charts of ksmd's counters; none if it never did anything."""
    names = ("shared", "sharing", "unshared", "volatile")
    levels = {name: history.level(f"ksm.pages_{name}") for name in names}
    scanned = history.last("ksm.pages_scanned")
    if not scanned and not any(level.any() for level in levels.values()):
        return []
    curves = [
        Curve("sharing", levels["sharing"], Colour.SAVED_OTHER),
        Curve("shared", levels["shared"], Colour.MERGED, Dash.DASH),
        Curve("unshared", levels["unshared"], Colour.UNIQUE),
        Curve("volatile", levels["volatile"], Colour.SWAPPED, Dash.DOT),
    ]
    zero_pages = history.level("ksm.ksm_zero_pages")
    if zero_pages.any():
        curves.append(Curve("ksm_zero_pages", zero_pages, Colour.SAVED_ZERO))
    kinds = time_chart(
        "What ksmd knows of the pages",
        f"shared: merged pages, {history.last('ksm.pages_shared'):,} at the end; sharing: mappings of them"
        f" beyond the first, {history.last('ksm.pages_sharing'):,}; unshared: calm, but like no other;"
        " volatile: they change too fast.",
        (history.times_ns, axis),
        [Panel(Axis("pages", "thousands", _THOUSAND), curves)],
    )
    pace_curves = [Curve("scanned", history.rate("ksm.pages_scanned"), Colour.UNIQUE)]
    skipped = history.rate("ksm.pages_skipped")
    if skipped.any():
        pace_curves.append(Curve("skipped", skipped, Colour.SWAPPED, Dash.DASH))
    full_scans = history.level("ksm.full_scans")
    pace = time_chart(
        "How fast ksmd goes",
        f"{scanned:,} pages scanned, {history.last('ksm.full_scans'):,} times through all of them.",
        (history.times_ns, axis),
        [
            Panel(Axis("pace", "1000 pages/s", _THOUSAND), pace_curves),
            Panel(Axis("full scans", "count"), [Curve("full scans", full_scans, Colour.INK)], stepped=True),
        ],
    )
    return [kinds, pace]


def swap_charts(history: History, axis: Axis) -> list[Chart]:
    """Return the chart of swap traffic; none if there was none."""
    used = history.level("nr_swap_used")
    swapped_in, swapped_out = history.last("pswpin"), history.last("pswpout")
    if not (swapped_in or swapped_out or used.any()):
        return []
    curves = [
        Curve("out", history.rate("pswpout"), Colour.SWAPPED),
        Curve("in", history.rate("pswpin"), Colour.UNIQUE, Dash.DASH),
    ]
    caption = (
        f"{as_size(swapped_out)} went out, {as_size(swapped_in)} came back;"
        f" {as_size(history.last('nr_swap_used'))} of swap are in use at the end."
    )
    panels = [
        Panel(_MIB_PER_S, curves),
        Panel(memory_axis("swap in use", used), [Curve("in use", used, Colour.INK)]),
    ]
    return [time_chart("Swap traffic", caption, (history.times_ns, axis), panels)]


def last_size(pages: Ints) -> str:
    """Return the last of some numbers of pages, as a size."""
    return as_size(int(pages[-1]))
