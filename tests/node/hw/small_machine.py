"""A machine built by hand for tests of the translation hardware: page tables are written, not faulted in."""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any, Final, NamedTuple

import numpy as np

from node.counters import Current, HwEvent, Knob, Request, VmEvent, VmStat
from node.fault.outcome import FaultOutcome
from node.hw.cost import Cost, cost_table_ps
from node.hw.ept_view import MAX_VIOLATIONS_PER_GFN
from node.hw.hardware import check_hardware, resolve_hw
from node.hw.paging import MODE_NAMES, PAGING_MODES, PageSize
from node.hw.power_on import load_registers, power_on, table_lengths
from node.hw.pte import NX, PFN_MASK, TABLE_BITS, Pte
from node.hw.tlb import TlbArray
from node.kmap.asid import NR_ASIDS
from node.kthread import ASLEEP, NR_KTHREADS
from node.pool import Pool
from node.state import State
from node.vm.vma import VmAreaStat, VmaSearch
from shared.constants import NIL, PAGE_SHIFT
from shared.views import View

USER_RW = Pte.PRESENT | Pte.WRITE | Pte.USER
USER_RO = Pte.PRESENT | Pte.USER
KERNEL_RW = Pte.PRESENT | Pte.WRITE
DATA_HITS = (HwEvent.TLB_L1_HIT, HwEvent.TLB_L2_HIT, HwEvent.TLB_WALK)
FETCH_HITS = (HwEvent.ITLB_L1_HIT, HwEvent.ITLB_L2_HIT, HwEvent.ITLB_WALK)

TlbShape = tuple[
    int, int, int, int
]  # sets and ways of the first level (for data and for code), of the second
SMALL_TLB: TlbShape = (2, 2, 4, 3)
NO_ARRAY: Final = {"entries": 0}
LARGER_SIZES: Final = {"none": (), "32bit": ("4M",)}
NO_WALK_CACHES: Final = dict.fromkeys(("pd", "pdpt", "pml4", "pml5", "ept_pd"), NO_ARRAY)
# The rest of a key: a page's number, its size, whether it is global, its PCID.
KEY_PAGE_SHIFT: Final = 16
KEY_SIZE_SHIFT: Final = 13
KEY_GLOBAL: Final = 1 << 12
KEY_PCID: Final = (1 << 12) - 1


class Cached(NamedTuple):
    """What an entry of a TLB or paging-structure cache is about."""

    role: TlbArray  # of a shared array its first role
    pcid: int  # 0 of a global entry
    size: int
    vaddr: int  # where the page, or what the table maps, begins
    is_global: bool


def shape_keys(shape: TlbShape, paging: str = "4level") -> dict[str, Any]:
    """Return the ``tlb`` key of a machine with 4 KiB pages in two levels; larger pages are never cached."""
    first = {"entries": shape[0] * shape[1], "ways": shape[1]}
    second = {"entries": shape[2] * shape[3], "ways": shape[3]}
    larger = dict.fromkeys(LARGER_SIZES.get(paging, ("2M", "1G")), NO_ARRAY)
    return {"unified": larger | {"4K": first}, "second": larger | {"4K": second}}


class SmallMachine:
    """A State with address spaces 1..nr_mms, and none loaded. Tables take frames from the top, callers others.

    ``hw``: keys of ``resolve_hw``. What they do not say: ``tlb``, no paging-structure caches, no isolation.
    """

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
        hw: Mapping[str, Any] | None = None,
    ) -> None:
        keys: dict[str, Any] = {"walk_caches": NO_WALK_CACHES, "pti": False} | dict(hw or {})
        keys.setdefault("tlb", shape_keys(tlb, keys.get("paging", "4level")))
        self.hw, self.tlb_spec = resolve_hw(keys)
        check_hardware(self.hw, self.tlb_spec)
        self.mode = PAGING_MODES[MODE_NAMES[self.hw.paging]]
        lengths = dict.fromkeys(State.LAYOUT, 1) | {
            "panic": 4,
            "current": Current.NR,
            "request": Request.NR,
            "knob": Knob.NR,
            "cost": Cost.NR,
            "vm_event": VmEvent.NR,
            "vm_stat": VmStat.NR,
            "hw_event": HwEvent.NR,
            "pool": Pool.NR,
            "vm_area_stat": VmAreaStat.NR,
            "fault_outcome": FaultOutcome.NR,
            "page": nr_frames,
            "pt_word": nr_frames << self.mode.table_shift,
            "cpu": nr_cpus,
            **table_lengths(self.tlb_spec, self.hw.walk_caches, nr_cpus),
            "tlb_context": nr_cpus * NR_ASIDS,
            "entry_page": nr_cpus * 4,
            "mm": nr_mms + 1,
            "kthread": NR_KTHREADS,
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
        }
        for knob, value in knobs.items():
            self.state.knob[knob] = value
        np.asarray(self.state.cost)[:] = cost_table_ps(Fraction(1), {})
        np.asarray(self.state.kthread)["clock_ps"] = ASLEEP
        np.asarray(self.state.ept_view)[:] = View.WRITABLE
        power_on(self.state, self.hw, self.tlb_spec, is_guest=guest)
        self._make_top_tables(nr_mms)
        load_registers(self.state, self.hw, int(self.state.knob[Knob.SWAPPER_PGD]))
        np.asarray(self.state.cpu)["next_asid"] = 1

    # --- page tables ------------------------------------------------------------------------------------

    def _make_top_tables(self, nr_mms: int) -> None:
        self.kernel_index = (1 << self.mode.table_shift) // 2
        self.state.knob[Knob.KERNEL_PGD_INDEX] = self.kernel_index
        self.state.knob[Knob.SWAPPER_PGD] = self._new_pair()
        self.state.pool[Pool.MM].mark = nr_mms + 1
        self.state.knob[Knob.VMA_SEARCH] = VmaSearch.LIST  # there are no trees here
        for index in range(1, nr_mms + 1):
            mm = self.state.mm[index]
            mm.pgd_pfn = self._new_pair()
            mm.first_vma = NIL
            mm.last_found = NIL
            self.revive(index)

    def revive(self, mm: int) -> None:
        """Let a new address space begin in the record and the tables of ``mm``."""
        self.state.current[Current.LAST_CTX_ID] += 1
        self.state.mm[mm].ctx_id = self.state.current[Current.LAST_CTX_ID]
        self.state.mm[mm].tlb_gen = 0
        self.state.mm[mm].alive = 1

    def _new_table(self) -> int:
        self.next_table -= 1
        return self.next_table + 1

    def _new_pair(self) -> int:
        """Return a frame for a top-level table; with isolation the first of two, with an even number."""
        if not self.hw.pti:
            return self._new_table()
        self.next_table -= 3 - self.next_table % 2
        return self.next_table + 1

    def tops(self, mm: int) -> list[int]:
        """Return the top-level tables of an address space; of 0, the master's."""
        pgd = int(self.state.mm[mm].pgd_pfn) if mm else int(self.state.knob[Knob.SWAPPER_PGD])
        return [pgd, pgd + 1] if self.hw.pti else [pgd]

    def _set_top(self, mm: int, index: int, word: int) -> None:
        """Write an entry of a top-level table: of the kernel's half into all tables that there are."""
        if index >= self.kernel_index:
            mms = range(int(self.state.pool[Pool.MM].mark))
            tops = [top for each in mms for top in self.tops(each)]
        else:
            tops = self.tops(mm)
        for number, top in enumerate(tops):
            poisoned = self.hw.pti and index < self.kernel_index and number == 0
            self.state.pt_word[(top << self.mode.table_shift) + index] = word | NX if poisoned else word

    def position(self, mm: int, vaddr: int, upper_bits: int = TABLE_BITS, size: int = PageSize.SMALL) -> int:
        """Return where in pt_word the entry of a page at ``vaddr`` stands, making tables with ``upper_bits``."""
        table = self.tops(mm)[0]
        last = len(self.mode.levels) - 1 - size
        for number, level in enumerate(self.mode.levels[: last + 1]):
            index = (vaddr >> level.shift) % (1 << self.mode.table_shift)
            position = (table << self.mode.table_shift) + index
            if number == last:
                break
            if not self.state.pt_word[position] & Pte.PRESENT:
                word = (self._new_table() << PAGE_SHIFT) | upper_bits
                if number == 0:
                    self._set_top(mm, index, word)
                else:
                    self.state.pt_word[position] = word
            table = (self.state.pt_word[position] >> PAGE_SHIFT) & PFN_MASK
        return int(position)

    def map(self, mm: int, vaddr: int, pfn: int, bits: int = USER_RW, size: int = PageSize.SMALL) -> None:
        """Let ``vaddr`` of ``mm`` lead to frame ``pfn``; a page of the kernel's half is in all address spaces."""
        large = Pte.HUGE if size else 0
        self.state.pt_word[self.position(mm, vaddr, size=size)] = (pfn << PAGE_SHIFT) | bits | large

    def pte(self, mm: int, vaddr: int, size: int = PageSize.SMALL) -> int:
        """Return the entry that maps ``vaddr``."""
        return int(self.state.pt_word[self.position(mm, vaddr, size=size)])

    # --- running ----------------------------------------------------------------------------------------

    def run_on(self, cpu: int) -> None:
        """Let ``cpu`` make the accesses from here on."""
        self.state.current[Current.CPU] = cpu

    def now(self) -> int:
        """Return the clock of what runs, in ps."""
        return int(self.state.current[Current.CLOCK_PS])

    def events(self, *which: HwEvent) -> list[int]:
        """Return counters of the translation hardware."""
        return [int(self.state.hw_event[event]) for event in which]

    def vm_events(self, *which: VmEvent) -> list[int]:
        """Return counters of /proc/vmstat."""
        return [int(self.state.vm_event[event]) for event in which]

    # --- what is cached ---------------------------------------------------------------------------------

    def _roles(self) -> Iterator[tuple[TlbArray, int]]:
        """Yield each array once: its first role and place."""
        seen = set()
        for role in TlbArray:
            if role == TlbArray.NR:
                return
            array = self.state.tlb_array[role]
            if array.nr_ways and array.first not in seen:
                seen.add(array.first)
                yield role, int(array.first)

    def _decode(self, role: TlbArray, key: int) -> Cached:
        size = key >> KEY_SIZE_SHIFT & 3
        if role < TlbArray.WALK_PD:
            shift = int(self.state.tlb_array[size].shift)
        else:
            # The lowest cache holds entries of the level above the last.
            shift = self.mode.levels[len(self.mode.levels) - 2 - (role - TlbArray.WALK_PD)].shift
        return Cached(
            role, key & KEY_PCID, size, (key >> KEY_PAGE_SHIFT) << shift, key & KEY_GLOBAL == KEY_GLOBAL
        )

    def ways(self, role: TlbArray, cpu: int = 0) -> list[list[Cached | None]]:
        """Return what each way of each set of an array holds."""
        array = self.state.tlb_array[role]
        base = cpu * int(self.state.knob[Knob.TLB_ENTRIES]) + int(array.first)
        keys = [int(self.state.tlb[base + index].key) for index in range(array.nr_sets * array.nr_ways)]
        decoded = [self._decode(role, key) if key else None for key in keys]
        nr_ways = int(array.nr_ways)
        return [decoded[first : first + nr_ways] for first in range(0, len(decoded), nr_ways)]

    def cached(self, cpu: int = 0) -> set[Cached]:
        """Return all that a CPU has cached, but of the host's table."""
        return {
            entry
            for role, _ in self._roles()
            if role != TlbArray.EPT_PD
            for ways in self.ways(role, cpu)
            for entry in ways
            if entry is not None
        }
