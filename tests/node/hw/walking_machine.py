"""A machine with nothing but page tables, registers and TLBs, for comparing its walks with others'."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from node.counters import Current, HwEvent, Knob, VmEvent
from node.hw.cost import Cost, cost_table_ps
from node.hw.memory_type import POWER_ON_PAT
from node.hw.paging import MAX_LEVELS, PAGING_MODES, PageSize, PagingMode, setup_paging
from node.hw.registers import CR3_NO_FLUSH, Cr0, Cr4, Efer, FaultVector
from node.hw.tlb import PCID_GROUPS, Replacement, TlbArray
from node.state import State
from shared.constants import NIL, PAGE_SHIFT
from tests.models.paging import Access, Fault, Registers
from tests.models.unicorn_mmu import NOT_AN_ADDRESS
from tests.node.hw.random_tables import NR_FRAMES, Case, Shape
from tests.node.hw.walk_entries import (
    NR_ARGUMENTS,
    NR_RESULTS,
    load_control,
    load_rest,
    run_accesses,
    start_paging,
)

MODES: Final = {
    Shape.BITS_32: PagingMode.BITS_32,
    Shape.LEVEL_4: PagingMode.LEVEL_4,
    Shape.LEVEL_5: PagingMode.LEVEL_5,
}
MAX_BATCH: Final = 1 << 10
SIGN: Final = 1 << 63

# Role: sets, ways, replacement. Small, so that entries are replaced all the time; of every kind; one role shares
# its array, some have none.
TLB_SHAPE: Final = {
    TlbArray.D1_4K: (2, 2, Replacement.LRU),
    TlbArray.D1_2M: (1, 2, Replacement.FIFO),
    TlbArray.D1_1G: (1, 1, Replacement.LRU),
    TlbArray.I1_4K: (3, 1, Replacement.LRU),
    TlbArray.I1_2M: (1, 2, Replacement.RANDOM),
    TlbArray.L2_4K: (4, 4, Replacement.PLRU),
    TlbArray.WALK_PD: (1, 4, Replacement.LRU),
    TlbArray.WALK_PDPT: (1, 2, Replacement.LRU),
    TlbArray.WALK_PML4: (1, 2, Replacement.LRU),
    TlbArray.WALK_PML5: (1, 1, Replacement.LRU),
}
SHARES: Final = {TlbArray.L2_2M: TlbArray.L2_4K}


def signed(value: int) -> int:
    """Return a 64-bit value as tables of a state hold it."""
    return value - (1 << 64) if value & SIGN else value


def unsigned(value: int) -> int:
    return value % (1 << 64)


class WalkingMachine:
    """A State whose memory holds the tables of one case at a time."""

    def __init__(self, shape: Shape, physical_bits: int, *, has_1gib_pages: bool = True) -> None:
        self.mode = PAGING_MODES[MODES[shape]]
        nr_entries = sum(sets * ways for sets, ways, _ in TLB_SHAPE.values())
        nr_sets = sum(sets for sets, _, _ in TLB_SHAPE.values())
        lengths = dict.fromkeys(State.LAYOUT, 1) | {
            "panic": 4,
            "current": Current.NR,
            "request": 16,
            "knob": Knob.NR,
            "cost": Cost.NR,
            "vm_event": VmEvent.NR,
            "hw_event": HwEvent.NR,
            "pt_word": NR_FRAMES << self.mode.table_shift,
            "paging_level": MAX_LEVELS,
            "tlb_array": TlbArray.NR,
            "tlb": nr_entries,
            "tlb_tree": nr_sets,
            "cached_paths": PCID_GROUPS,
            "zipf": MAX_BATCH * (NR_ARGUMENTS + NR_RESULTS),
        }
        self.state = State(**lengths)
        self.state.knob[Knob.NR_FRAMES] = NR_FRAMES
        self.state.knob[Knob.NR_CPUS] = 1
        self.state.knob[Knob.TLB_ENTRIES] = nr_entries
        self.state.knob[Knob.TLB_SETS] = nr_sets
        np.asarray(self.state.cost)[:] = cost_table_ps(Fraction(1), {})
        setup_paging(self.state, MODES[shape], physical_bits, gigantic=has_1gib_pages)
        self.state.cpu[0].pat = POWER_ON_PAT
        self._setup_tlbs(shape)
        self.words: npt.NDArray[np.int64] = np.asarray(self.state.pt_word)

    def _setup_tlbs(self, shape: Shape) -> None:
        large = 22 if shape is Shape.BITS_32 else 21
        first = first_set = 0
        for role in TlbArray:
            if role == TlbArray.NR:
                break
            record = self.state.tlb_array[role]
            nr_sets, nr_ways, replacement = TLB_SHAPE.get(SHARES.get(role, role), (1, 0, Replacement.LRU))
            record.nr_sets = nr_sets
            record.set_mask = NIL if nr_sets & (nr_sets - 1) else nr_sets - 1
            record.nr_ways = nr_ways
            record.replacement = replacement
            record.shift = (PAGE_SHIFT, large, 30)[role % PageSize.NR]
            if role in SHARES:
                record.first = self.state.tlb_array[SHARES[role]].first
                record.first_set = self.state.tlb_array[SHARES[role]].first_set
            else:
                record.first = first
                record.first_set = first_set
                first += nr_sets * nr_ways
                first_set += nr_sets if nr_ways else 0

    # --- a case -----------------------------------------------------------------------------------------

    def start(self, case: Case) -> None:
        """Put a case's tables into the memory and set the registers that stay during it; nothing is cached."""
        self.words[:] = 0
        for paddr, entry in case.entries.items():
            self.words[paddr // self.mode.entry_bytes] = signed(entry)
        registers = case.registers
        efer = (Efer.LME | Efer.LMA if registers.lme else 0) | (Efer.NXE if registers.nxe else 0)
        cr4 = (Cr4.PAE if registers.pae else 0) | (Cr4.LA57 if registers.la57 else 0)
        start_paging(self.state, case.root, cr4, efer)

    def load(self, registers: Registers, *, keep: bool) -> None:
        """Load the registers of a round; ``keep``: with bit 63 of CR3, if there are PCIDs."""
        bits = {
            Cr4.PSE: registers.pse,
            Cr4.PAE: registers.pae,
            Cr4.PGE: registers.pge,
            Cr4.LA57: registers.la57,
            Cr4.PCIDE: registers.pcide,
            Cr4.SMEP: registers.smep,
            Cr4.SMAP: registers.smap,
            Cr4.PKE: registers.pke,
        }
        cr0 = Cr0.PE | (Cr0.PG if registers.pg else 0) | (Cr0.WP if registers.wp else 0)
        cr3 = registers.cr3 | (CR3_NO_FLUSH if keep and registers.pcide else 0)
        refused = load_control(self.state, cr0, cr3, sum(bit for bit, is_set in bits.items() if is_set))
        if refused:
            raise ValueError(f"the processor refused {registers}")
        load_rest(self.state, registers.pkru, registers.cpl, int(registers.ac))

    def access_all(self, accesses: Sequence[tuple[int, Access]], how: int) -> list[int | Fault]:
        """Make accesses; return of each the physical address of its 4 KiB frame, or its fault.

        Without a fault CR2 must stay as it was; this raises if it does not.
        """
        if len(accesses) > MAX_BATCH:
            raise ValueError(f"{len(accesses)} accesses are more than a batch's {MAX_BATCH}")
        batch: npt.NDArray[Any] = np.asarray(self.state.zipf)
        nr_arguments = NR_ARGUMENTS * len(accesses)
        batch[:nr_arguments] = [word for vaddr, kind in accesses for word in (signed(vaddr), kind.value)]
        self.state.cpu[0].cr2 = cr2_before = NOT_AN_ADDRESS
        run_accesses(self.state, len(accesses), how)
        results = batch[nr_arguments : nr_arguments + NR_RESULTS * len(accesses)].reshape(-1, NR_RESULTS)
        outcomes: list[int | Fault] = []
        for pfn, vector, cr2, code in results.tolist():
            if vector == FaultVector.PAGE_FAULT:
                cr2_before = cr2
                outcomes.append(Fault(vector, unsigned(cr2), code))
                continue
            if cr2 != cr2_before:
                raise ValueError(f"CR2 became {cr2:#x} without a page fault")
            outcomes.append(Fault(vector, None, code) if vector else pfn << PAGE_SHIFT)
        return outcomes

    def events(self, *which: HwEvent) -> list[int]:
        """Return counters of the translation hardware."""
        return [int(self.state.hw_event[event]) for event in which]


class Tables:
    """Page tables of the machine or of Unicorn, as the model reads them."""

    def __init__(self, words: npt.NDArray[Any], entry_bytes: int) -> None:
        self._words = words
        self._entry_bytes = entry_bytes

    def __getitem__(self, paddr: int) -> int:
        return unsigned(int(self._words[paddr // self._entry_bytes]))

    def __setitem__(self, paddr: int, entry: int) -> None:
        self._words[paddr // self._entry_bytes] = signed(entry)
