"""A machine built by hand for tests of the translation hardware: page tables are written, not faulted in."""

from fractions import Fraction

import numpy as np

from node.counters import Current, HwEvent, Knob
from node.hw.cost import Cost, cost_table_ps
from node.hw.ept_view import MAX_VIOLATIONS_PER_GFN
from node.hw.page_table import NR_LEVELS, TOP_SHIFT
from node.hw.pte import PFN_MASK, TABLE_BITS, Pte
from node.kthread import ASLEEP
from node.pool import Pool
from node.state import State
from shared.constants import NIL, PAGE_SHIFT, TABLE_INDEX_MASK, TABLE_SHIFT
from shared.views import View

USER_RW = Pte.PRESENT | Pte.WRITE | Pte.USER
USER_RO = Pte.PRESENT | Pte.USER
TlbShape = tuple[int, int, int, int]  # sets and ways of the first level, of the second
SMALL_TLB: TlbShape = (2, 2, 4, 3)


class SmallMachine:
    """A State with address spaces 1..nr_mms. Tables take frames from the top, callers others."""

    def __init__(
        self,
        *,
        nr_frames: int = 128,
        nr_cpus: int = 1,
        nr_mms: int = 2,
        tlb: TlbShape = SMALL_TLB,
        guest: bool = False,
        nr_works: int = 0,
        zipf_words: int = 0,
    ) -> None:
        nr_entries = tlb[0] * tlb[1] + tlb[2] * tlb[3]
        lengths = dict.fromkeys(State.LAYOUT, 1) | {
            "panic": 4,
            "current": Current.NR,
            "request": 16,
            "knob": Knob.NR,
            "cost": Cost.NR,
            "vm_event": 32,
            "vm_stat": 16,
            "hw_event": HwEvent.NR,
            "pool": Pool.NR,
            "page": nr_frames,
            "pt_word": nr_frames << TABLE_SHIFT,
            "cpu": nr_cpus,
            "tlb": nr_cpus * nr_entries,
            "mm": nr_mms + 1,
            "kthread": 2,
            "work": max(nr_works, 1),
            "zipf": max(zipf_words, 1),
            "ept_view": nr_frames,
            "ept_mark": nr_frames,
            "ept_marked": nr_frames,
            "violation": MAX_VIOLATIONS_PER_GFN * nr_frames,
        }
        self.state = State(**lengths)
        self.next_table = nr_frames - 1
        knobs = {
            Knob.NR_FRAMES: nr_frames,
            Knob.NR_CPUS: nr_cpus,
            Knob.IS_GUEST: int(guest),
            Knob.NR_WORKS: nr_works,
            Knob.QUANTUM_PS: 1000,
            Knob.TIME_SLICE_PS: 10_000_000,
            Knob.TLB_ENTRIES: nr_entries,
        }
        knobs |= dict(
            zip((Knob.TLB_L1_SETS, Knob.TLB_L1_WAYS, Knob.TLB_L2_SETS, Knob.TLB_L2_WAYS), tlb, strict=True)
        )
        for knob, value in knobs.items():
            self.state.knob[knob] = value
        np.asarray(self.state.cost)[:] = cost_table_ps(Fraction(1), {})
        np.asarray(self.state.kthread)["clock_ps"] = ASLEEP
        np.asarray(self.state.ept_view)[:] = View.WRITABLE
        self.state.pool[Pool.MM].mark = nr_mms + 1
        for index in range(1, nr_mms + 1):
            mm = self.state.mm[index]
            mm.pgd_pfn = self._new_table()
            mm.pcid = index
            mm.alive = 1
            mm.first_vma = NIL
            mm.last_found = NIL

    def _new_table(self) -> int:
        self.next_table -= 1
        return self.next_table + 1

    def position(self, mm: int, vaddr: int, upper_bits: int = TABLE_BITS) -> int:
        """Return where in pt_word the leaf entry for ``vaddr`` stands, making tables with ``upper_bits``."""
        table = self.state.mm[mm].pgd_pfn
        for level in range(NR_LEVELS):
            shift = TOP_SHIFT - TABLE_SHIFT * level
            position = (table << TABLE_SHIFT) + ((vaddr >> shift) & TABLE_INDEX_MASK)
            if level == NR_LEVELS - 1:
                break
            if not self.state.pt_word[position] & Pte.PRESENT:
                self.state.pt_word[position] = (self._new_table() << PAGE_SHIFT) | upper_bits
            table = (self.state.pt_word[position] >> PAGE_SHIFT) & PFN_MASK
        return int(position)

    def map(self, mm: int, vaddr: int, pfn: int, bits: int = USER_RW) -> None:
        """Let ``vaddr`` of ``mm`` lead to frame ``pfn``."""
        self.state.pt_word[self.position(mm, vaddr)] = (pfn << PAGE_SHIFT) | bits

    def pte(self, mm: int, vaddr: int) -> int:
        """Return the leaf entry for ``vaddr``."""
        return int(self.state.pt_word[self.position(mm, vaddr)])

    def run_on(self, cpu: int) -> None:
        """Let ``cpu`` make the accesses from here on."""
        self.state.current[Current.CPU] = cpu

    def events(self, *which: HwEvent) -> list[int]:
        """Return counters of the translation hardware."""
        return [int(self.state.hw_event[event]) for event in which]
