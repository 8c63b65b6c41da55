"""The figures of a report, computed from samples: what came back, how fast, at what price.

The savings are those of ``cluster/summary.py``, at every sample instead of at the end:

    needed    what the guests have: in memory, swapped, or made the zero page by KSM
    saved     ksm.pages_sharing + ksm.ksm_zero_pages; from zeroes: ksm.sharing_zero + ksm.ksm_zero_pages
    slowdown  (run + stall) / run

The time to 90 % is the first sample at which 90 % of the *final* saving was reached; a saving that later
shrank may have been higher before.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from cluster.coordinator import OOM_KILL
from cluster.report_data import Floats, History, Ints, RunData

PERCENTS: Final = (50, 90, 99)
_ALL: Final = 100


@dataclass(frozen=True, slots=True)
class Memory:
    """A host's memory at every sample, in pages."""

    times_ns: Ints
    # what is in its frames
    kernel: Ints  # kernel, page tables, swap cache: managed, and neither free nor mapped by a process
    unique: Ints
    merged: Ints
    free: Ints
    # what its guests have, beside unique and merged
    saved_zero: Ints
    saved_other: Ints
    swapped: Ints
    needed: Ints  # all that the guests have: what they would need without merging

    @property
    def saved(self) -> Ints:
        """What merging saves."""
        return self.saved_zero + self.saved_other


@dataclass(frozen=True, slots=True)
class GuestFigures:
    """One guest or plain machine at its end."""

    name: str
    run_ns: int
    stall_ns: int

    @property
    def slowdown(self) -> float | None:
        """How much longer its work took than without waiting; None if it never ran."""
        return (self.run_ns + self.stall_ns) / self.run_ns if self.run_ns > 0 else None


@dataclass(frozen=True, slots=True)
class Figures:
    """The answer of a run, over all its hosts and machines."""

    nr_hosts: int
    nr_guests: int
    nr_machines: int
    needed_pages: int
    saved_pages: int
    saved_zero_pages: int
    time_to_ns: dict[int, int | None]  # of each of PERCENTS; None if nothing was saved
    swapped_in_pages: int
    swapped_out_pages: int
    in_swap_pages: int
    nr_killed: int  # guests
    nr_killed_processes: int  # of plain machines
    worst: GuestFigures | None  # of the largest slowdown
    operations: int
    faults: int
    tlb_hits: float | None  # share of accesses that no page walk was needed for


def memory_of(history: History, nr_guests: int) -> Memory:
    """Return a host's memory over time."""

    def of_guests(kind: str) -> Ints:
        sums = np.zeros(len(history.times_ns), np.int64)
        for guest in range(nr_guests):
            sums += history.level(f"guest.{guest}.{kind}_pages")
        return sums

    zero_pages = history.level("ksm.ksm_zero_pages")  # use_zero_pages: mapped to the kernel's zero page
    sharing_zero = history.level("ksm.sharing_zero")
    sharing_other = history.level("ksm.pages_sharing") - sharing_zero
    merged = history.level("ksm.pages_shared")
    resident, swapped = of_guests("rss"), of_guests("swapped")
    unique = resident - merged - sharing_zero - sharing_other
    free = history.level("nr_free_pages")
    mapped = np.maximum(unique, 0) + merged
    return Memory(
        times_ns=history.times_ns,
        kernel=np.maximum(history.level("managed_pages") - free - mapped, 0),
        unique=np.maximum(unique, 0),
        merged=merged,
        free=free,
        saved_zero=sharing_zero + zero_pages,
        saved_other=sharing_other,
        swapped=swapped,
        needed=resident + swapped + zero_pages,
    )


def time_to_percent(times_ns: Ints, saved: Ints, percent: int) -> int | None:
    """Return when ``percent`` of the last of ``saved`` was first reached, None if that is nothing."""
    if not len(saved) or saved[-1] <= 0:
        return None
    return int(times_ns[np.argmax(saved * _ALL >= saved[-1] * percent)])


def total(series: list[tuple[Ints, Ints]]) -> tuple[Ints, Ints]:
    """Add several (times, values) up over time; each keeps its last value, and is 0 before its first."""
    filled = [(times, values) for times, values in series if len(times)]
    if not filled:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    every = np.unique(np.concatenate([times for times, _ in filled]))
    sums = np.zeros(len(every), np.int64)
    for times, values in filled:
        at = np.searchsorted(times, every, side="right")
        sums += np.concatenate([[0], values])[at]
    return every, sums


def stalled_percent(history: History) -> Floats:
    """Return which part of each span a member waited, in percent; NaN where it did not run."""
    stalled = history.rises("stall_ns").astype(np.float64)
    spent = stalled + history.rises("run_ns")
    return np.divide(stalled * _ALL, spent, out=np.full(len(spent), np.nan), where=spent > 0)


def guest_figures(run: RunData, names: list[str]) -> list[GuestFigures]:
    """Return what each of these members took."""
    return [
        GuestFigures(name, run.history(name).last("run_ns"), run.history(name).last("stall_ns"))
        for name in names
    ]


def figures_of(run: RunData) -> Figures:
    """Return the answer of a run."""
    hosts, machines = run.of_kind("host"), run.of_kind("machine")
    guests = [guest for host in hosts for guest in run.guests_of(host)]
    memories = [memory_of(run.history(host), len(run.guests_of(host))) for host in hosts]
    times, saved = total([(memory.times_ns, memory.saved) for memory in memories])
    slowed = [guest for guest in guest_figures(run, guests + machines) if guest.slowdown is not None]

    def last(values: Ints) -> int:
        return int(values[-1]) if len(values) else 0

    def summed(counter: str, members: list[str]) -> int:
        return sum(run.history(member).last(counter) for member in members)

    kernels = hosts + machines
    return Figures(
        nr_hosts=len(hosts),
        nr_guests=len(guests),
        nr_machines=len(machines),
        needed_pages=sum(last(memory.needed) for memory in memories),
        saved_pages=last(saved),
        saved_zero_pages=sum(last(memory.saved_zero) for memory in memories),
        time_to_ns={percent: time_to_percent(times, saved, percent) for percent in PERCENTS},
        swapped_in_pages=summed("pswpin", kernels),
        swapped_out_pages=summed("pswpout", kernels),
        in_swap_pages=summed("nr_swap_used", kernels),
        nr_killed=sum(event.what == OOM_KILL for event in run.events),
        nr_killed_processes=summed("oom_kill", machines),
        worst=max(slowed, key=lambda guest: guest.slowdown or 0, default=None),
        operations=summed("operations", machines),
        faults=summed("pgfault", machines),
        tlb_hits=_tlb_hits(run, machines),
    )


def _tlb_hits(run: RunData, machines: list[str]) -> float | None:
    counts = {
        counter: sum(run.history(machine).last(counter) for machine in machines)
        for counter in ("tlb_l1_hit", "tlb_l2_hit", "tlb_walk")
    }
    lookups = sum(counts.values())
    return (lookups - counts["tlb_walk"]) / lookups if lookups else None
