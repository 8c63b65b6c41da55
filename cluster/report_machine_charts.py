"""The charts of a plain machine: its memory, where translations came from, faults, waiting, allocations, KSM, swap."""

from typing import Final

import numpy as np

from cluster.report_alloc_charts import alloc_charts
from cluster.report_chart import (
    MAX_POINTS,
    Axis,
    Chart,
    Colour,
    Curve,
    Dash,
    Panel,
    memory_axis,
    time_axis,
    time_chart,
)
from cluster.report_data import Floats, History, RunData
from cluster.report_figures import stalled_percent
from cluster.report_kernel_charts import STALLED, ksm_charts, last_size, swap_charts
from cluster.report_numbers import as_percent, as_time

_ALL: Final = 100  # percent
_THOUSAND: Final = 1000


def machine_charts(run: RunData, machine: str) -> list[Chart]:
    """Return the charts of a plain machine; none if it has no samples."""
    history, axis = run.history(machine).thinned(MAX_POINTS), time_axis(run.end_ns)
    if not len(history.times_ns):
        return []
    return [
        _machine_ram(history, axis),
        *_translations(history, axis),
        _faults(history, axis),
        *_waiting(history, axis),
        *alloc_charts(history, axis),
        *ksm_charts(history, axis),
        *swap_charts(history, axis),
    ]


def _machine_ram(history: History, axis: Axis) -> Chart:
    managed, free, anon = (
        history.level(name) for name in ("managed_pages", "nr_free_pages", "nr_anon_pages")
    )
    other = np.maximum(managed - free - anon, 0)
    curves = [
        Curve("kernel, page tables", other, Colour.KERNEL),
        Curve("anonymous", anon, Colour.UNIQUE),
        Curve("free", free, Colour.FREE),
    ]
    caption = f"At the end {last_size(anon)} are its processes' own, {last_size(free)} are free."
    panel = Panel(memory_axis("memory", managed), curves, stacked=True)
    return time_chart("What is in its memory", caption, (history.times_ns, axis), [panel])


def _translations(history: History, axis: Axis) -> list[Chart]:
    """Draw how addresses were translated, in percent of each span's translations."""
    sources = [
        ("page walk", "tlb_walk", Colour.SWAPPED),
        ("second-level TLB", "tlb_l2_hit", Colour.SAVED_OTHER),
        ("first-level TLB", "tlb_l1_hit", Colour.UNIQUE),
    ]
    lookups = np.sum([history.rises(counter) for _, counter, _ in sources], axis=0)
    if not lookups.any():
        return []

    def share(counter: str) -> Floats:
        parts = history.rises(counter) * float(_ALL)
        return np.divide(parts, lookups, out=np.full(len(parts), np.nan), where=lookups > 0)

    walks = history.last("tlb_walk") / int(lookups.sum())
    caption = (
        f"{int(lookups.sum()):,} translations; {as_percent(walks)} needed a page walk,"
        f" which read {history.last('walk_references'):,} entries."
    )
    panels = [
        Panel(
            Axis("translations", "%"),
            [Curve(name, share(counter), colour) for name, counter, colour in sources],
            stacked=True,
            top=_ALL,
        )
    ]
    return [time_chart("Where translations came from", caption, (history.times_ns, axis), panels)]


def _faults(history: History, axis: Axis) -> Chart:
    faults, major = history.last("pgfault"), history.last("pgmajfault")
    major_rate = history.rate("pgmajfault")
    curves = [
        Curve("minor", history.rate("pgfault") - major_rate, Colour.UNIQUE),
        Curve("major", major_rate, Colour.SWAPPED, Dash.DASH),
    ]
    waited = (
        f"{major:,} of them were major: they waited for the disk" if major else "none waited for the disk"
    )
    caption = f"{faults:,} page faults; {waited}."
    panel = Panel(Axis("faults", "1000/s", _THOUSAND), curves)
    return time_chart("Page faults", caption, (history.times_ns, axis), [panel])


def _waiting(history: History, axis: Axis) -> list[Chart]:
    if not history.last("stall_ns"):
        return []
    caption = f"It waited {as_time(history.last('stall_ns'))} for memory and disk."
    panel = Panel(STALLED, [Curve("stalled", stalled_percent(history), Colour.INK)])
    return [time_chart("Time spent waiting", caption, (history.times_ns, axis), [panel])]
