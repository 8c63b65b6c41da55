"""Linux's use of PCIDs, read off arch/x86/mm/tlb.c (6.1) with dictionaries: who runs where, who must flush when.

Address spaces are numbers that are never used twice; INIT is init_mm.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

NR_ASIDS = 6
CEILING = 33  # pages
INIT = 0
NOBODY = -1


class Cr3(NamedTuple):
    """A write of CR3."""

    cpu: int
    mm: int
    asid: int
    half: str
    kept: bool


@dataclass
class CpuModel:
    """cpu_tlbstate of one CPU, and whether it is in user mode."""

    loaded_mm: int = INIT
    loaded_asid: int = 0
    next_asid: int = 1
    lazy: bool = False
    in_user_mode: bool = False
    # Whose each ASID is, and up to which generation it is flushed.
    contexts: list[tuple[int, int]] = field(
        default_factory=lambda: [(INIT, 0)] + [(NOBODY, 0)] * (NR_ASIDS - 1)
    )
    user_flushes: set[int] = field(default_factory=set)


class AsidModel:
    """All CPUs of a machine."""

    def __init__(self, nr_cpus: int, *, pcid: bool, pti: bool) -> None:
        self.pcid = pcid
        self.pti = pti
        self.cpus = [CpuModel() for _ in range(nr_cpus)]
        self.tlb_gen: Counter[int] = Counter()
        self.writes: list[Cr3] = []
        self.counts: Counter[str] = Counter()

    # --- the border to user mode ------------------------------------------------------------------------

    def _write_cr3(self, cpu: int, half: str, kept: bool) -> None:
        state = self.cpus[cpu]
        self.writes.append(Cr3(cpu, state.loaded_mm, state.loaded_asid, half, kept))

    def enter_kernel(self, cpu: int) -> None:
        """SWITCH_TO_KERNEL_CR3."""
        if self.cpus[cpu].in_user_mode:
            self.cpus[cpu].in_user_mode = False
            self.counts["kernel_entry"] += 1
            if self.pti:
                self._write_cr3(cpu, "kernel", self.pcid)

    def leave_kernel(self, cpu: int) -> None:
        """SWITCH_TO_USER_CR3."""
        state = self.cpus[cpu]
        if state.in_user_mode:
            return
        state.in_user_mode = True
        if self.pti:
            flush_is_due = state.loaded_asid in state.user_flushes
            state.user_flushes.discard(state.loaded_asid)
            self._write_cr3(cpu, "user", self.pcid and not flush_is_due)

    # --- switching --------------------------------------------------------------------------------------

    def _invalidate_user_asid(self, cpu: int, asid: int) -> None:
        if self.pti and self.pcid:
            self.cpus[cpu].user_flushes.add(asid)

    def _choose_new_asid(self, cpu: int, mm: int) -> tuple[int, bool]:
        """Return the ASID, and whether it must be flushed."""
        state = self.cpus[cpu]
        if not self.pcid:
            return 0, True
        for asid, (owner, tlb_gen) in enumerate(state.contexts):
            if owner == mm:
                return asid, tlb_gen < self.tlb_gen[mm]
        asid = state.next_asid
        state.next_asid += 1
        if asid >= NR_ASIDS:
            asid = 0
            state.next_asid = 1
        return asid, True

    def switch_mm(self, cpu: int, mm: int) -> None:
        """switch_mm_irqs_off."""
        state = self.cpus[cpu]
        was_lazy, state.lazy = state.lazy, False
        if state.loaded_mm == mm:
            if not was_lazy or state.contexts[state.loaded_asid][1] == self.tlb_gen[mm]:
                return
            asid, need_flush = state.loaded_asid, True
        else:
            asid, need_flush = self._choose_new_asid(cpu, mm)
        state.loaded_mm, state.loaded_asid = mm, asid
        if need_flush:
            state.contexts[asid] = (mm, self.tlb_gen[mm])
            self._invalidate_user_asid(cpu, asid)
        self._write_cr3(cpu, "kernel", not need_flush)

    def enter_lazy_tlb(self, cpu: int) -> None:
        if self.cpus[cpu].loaded_mm != INIT:
            self.cpus[cpu].lazy = True

    def run(self, cpu: int, mm: int) -> None:
        """Let a task of ``mm`` run in user mode."""
        state = self.cpus[cpu]
        if (state.loaded_mm, state.in_user_mode, state.lazy) != (mm, True, False):
            self.enter_kernel(cpu)
            self.switch_mm(cpu, mm)
            self.leave_kernel(cpu)

    def go_idle(self, cpu: int) -> None:
        if not self.cpus[cpu].lazy and self.cpus[cpu].loaded_mm != INIT:
            self.enter_kernel(cpu)
            self.enter_lazy_tlb(cpu)

    # --- flushing ---------------------------------------------------------------------------------------

    def _flush_tlb_func(self, cpu: int, nr_pages: int | None, is_local: bool) -> None:
        state = self.cpus[cpu]
        came_from_user_mode = state.in_user_mode
        if not is_local:
            self.counts["nr_tlb_remote_flush_received"] += 1
        self.enter_kernel(cpu)
        self._catch_up(cpu, nr_pages, is_local)
        if came_from_user_mode:
            self.leave_kernel(cpu)

    def _catch_up(self, cpu: int, nr_pages: int | None, is_local: bool) -> None:
        state = self.cpus[cpu]
        mm, asid = state.loaded_mm, state.loaded_asid
        if mm == INIT:
            return
        if state.lazy:
            self.switch_mm(cpu, INIT)
            return
        local_gen, mm_gen = state.contexts[asid][1], self.tlb_gen[mm]
        if local_gen == mm_gen:
            return
        if nr_pages is not None and mm_gen == local_gen + 1:
            self.counts["nr_tlb_local_flush_one"] += nr_pages if is_local else 0
        else:
            self._invalidate_user_asid(cpu, asid)
            self._write_cr3(cpu, "kernel", kept=False)
            self.counts["nr_tlb_local_flush_all"] += is_local
        state.contexts[asid] = (mm, mm_gen)

    def flush_tlb_mm_range(self, here: int, mm: int, nr_pages: int | None, freed_tables: bool) -> set[int]:
        """Flush so many pages, or all; return the CPUs that were interrupted."""
        if nr_pages is not None and nr_pages > CEILING:
            nr_pages = None
        self.tlb_gen[mm] += 1
        in_mask = {cpu for cpu, state in enumerate(self.cpus) if state.loaded_mm == mm}
        if not in_mask - {here}:
            if here in in_mask:
                self._flush_tlb_func(here, nr_pages, is_local=True)
            return set()
        self.counts["nr_tlb_remote_flush"] += 1
        asked = {cpu for cpu in in_mask if freed_tables or not self.cpus[cpu].lazy}
        for cpu in sorted(asked):
            self._flush_tlb_func(cpu, nr_pages, is_local=cpu == here)
        return asked - {here}

    def exit(self, here: int, mm: int) -> None:
        """The last task of ``mm`` ends: exit_mm lets its CPUs borrow the tables, tlb_finish_mmu takes them away."""
        for cpu, state in enumerate(self.cpus):
            if state.loaded_mm == mm:
                self.enter_kernel(cpu)
                self.enter_lazy_tlb(cpu)
        self.flush_tlb_mm_range(here, mm, None, freed_tables=True)
