"""Bringing up a machine's translation hardware: arrays laid out, registers as a booted kernel has set them.

    CR0    PE WP PG            CR4    PAE PGE, and as the processor has them PCIDE SMEP SMAP PKE LA57
    EFER   LME LMA NXE         PAT    Linux's         PKRU   Linux's init value: only key 0 is open

Linux: arch/x86/kernel/head_64.S, arch/x86/kernel/cpu/common.c (setup_smep, setup_smap, setup_pku),
arch/x86/mm/init.c (probe_page_size_mask, setup_pcid), arch/x86/mm/pkeys.c (init_pkru_value).
"""

from typing import TYPE_CHECKING, Final

from node.counters import Knob
from node.hw.hardware import HwSpec
from node.hw.memory_type import LINUX_PAT
from node.hw.paging import MAX_LEVELS, MODE_NAMES, PAGING_MODES, PageSize, PagingMode, setup_paging
from node.hw.processors import TlbArraySpec, TlbSpec, WalkCacheSpec
from node.hw.pte import NX
from node.hw.registers import Cr0, Cr4, Efer, setup_registers
from node.hw.tlb import PCID_GROUPS, Refill, Replacement, TlbArray
from shared.constants import NIL, PAGE_SHIFT

if TYPE_CHECKING:
    from node.state import State

INIT_PKRU: Final = 0x55555554  # every key but 0 may not be read
EPT_LEVELS: Final = 4
_WALK_ROLES: Final = {
    TlbArray.WALK_PD: "pd",
    TlbArray.WALK_PDPT: "pdpt",
    TlbArray.WALK_PML4: "pml4",
    TlbArray.WALK_PML5: "pml5",
    TlbArray.EPT_PD: "ept_pd",
}


def _arrays(tlb: TlbSpec, walk_caches: WalkCacheSpec) -> list[TlbArraySpec]:
    """Return all arrays of a CPU in the order in which they are laid out."""
    caches = [getattr(walk_caches, name) for name in _WALK_ROLES.values()]
    return [*tlb.arrays, *(cache for cache in caches if cache is not None)]


def nr_tlb_entries(tlb: TlbSpec, walk_caches: WalkCacheSpec) -> int:
    """Return how many entries all arrays of one CPU have."""
    return sum(array.entries for array in _arrays(tlb, walk_caches))


def nr_tlb_sets(tlb: TlbSpec, walk_caches: WalkCacheSpec) -> int:
    """Return how many sets all arrays of one CPU have."""
    return sum(array.nr_sets for array in _arrays(tlb, walk_caches))


def table_lengths(tlb: TlbSpec, walk_caches: WalkCacheSpec, cpus: int) -> dict[str, int]:
    """Return the lengths of the tables of ``State`` that hold the arrays of all CPUs."""
    return {
        "paging_level": MAX_LEVELS,
        "tlb_array": TlbArray.NR,
        "tlb": cpus * nr_tlb_entries(tlb, walk_caches),
        "tlb_tree": cpus * nr_tlb_sets(tlb, walk_caches),
        "cached_paths": cpus * PCID_GROUPS,
    }


def setup_tlbs(state: "State", tlb: TlbSpec, walk_caches: WalkCacheSpec, mode: PagingMode) -> None:
    """Describe the arrays in ``state.tlb_array``: TLBs first, then the paging-structure caches."""
    state.knob[Knob.TLB_ENTRIES] = nr_tlb_entries(tlb, walk_caches)
    state.knob[Knob.TLB_SETS] = nr_tlb_sets(tlb, walk_caches)
    state.knob[Knob.TLB_REFILL] = Refill[tlb.refill.upper()]
    places = []
    first = first_set = 0
    for array in _arrays(tlb, walk_caches):
        places.append((array, first, first_set))
        first += array.entries
        first_set += array.nr_sets
    walk_roles = [role for role, name in _WALK_ROLES.items() if getattr(walk_caches, name) is not None]
    place_of: dict[int, int] = {role: place for role, place in enumerate(tlb.roles) if place is not None}
    place_of |= {role: len(tlb.arrays) + number for number, role in enumerate(walk_roles)}
    shifts = _page_shifts(mode)
    for role in range(TlbArray.NR):
        record = state.tlb_array[role]
        record.nr_sets = 1
        record.first = first  # of a role without an array: behind all
        record.shift = shifts[role % PageSize.NR] if role < TlbArray.WALK_PD else PAGE_SHIFT
        if role not in place_of:
            continue
        array, record.first, record.first_set = places[place_of[role]]
        record.nr_sets = array.nr_sets
        record.set_mask = NIL if array.nr_sets & (array.nr_sets - 1) else array.nr_sets - 1
        record.nr_ways = array.ways
        record.replacement = Replacement[array.replacement.upper()]
        record.wired = array.wired


def _page_shifts(mode: PagingMode) -> tuple[int, int, int]:
    """Return the shifts of the page sizes; one that the mode lacks is as in 4-level paging."""
    shifts = {PageSize.SMALL: PAGE_SHIFT, PageSize.LARGE: 21, PageSize.GIGANTIC: 30}
    shifts |= {level.page_size: level.shift for level in PAGING_MODES[mode].levels}
    return shifts[PageSize.SMALL], shifts[PageSize.LARGE], shifts[PageSize.GIGANTIC]


def register_values(hw: HwSpec, root_pfn: int) -> dict[str, int]:
    """Return a CPU's registers, by the names of its record's fields, with the table in ``root_pfn`` loaded."""
    if hw.paging == "none":
        return {"cr0": Cr0.PE, "pat": LINUX_PAT}
    is_64 = hw.paging in ("4level", "5level")
    features = hw.features
    cr4 = 0
    for bit, has in (
        (Cr4.PSE, not is_64),
        (Cr4.PAE, is_64),
        (Cr4.PGE, hw.global_pages),
        (Cr4.PCIDE, hw.pcid),
        (Cr4.SMEP, features.smep),
        (Cr4.SMAP, features.smap),
        (Cr4.PKE, features.pke and is_64),
        (Cr4.LA57, hw.paging == "5level"),
    ):
        cr4 |= bit if has else 0
    efer = Efer.LME | Efer.LMA if is_64 else 0
    return {
        "cr0": Cr0.PE | Cr0.WP | Cr0.PG,
        "cr3": root_pfn << PAGE_SHIFT,
        "cr4": cr4,
        "efer": efer | (Efer.NXE if is_64 and features.nx else 0),
        "pkru": INIT_PKRU if features.pke and is_64 else 0,
        "pat": LINUX_PAT,
    }


def power_on(state: "State", hw: HwSpec, tlb: TlbSpec, *, is_guest: bool) -> None:
    """Set up paging mode, arrays and the knobs that say what the machine can do; registers come with the tables."""
    mode = MODE_NAMES[hw.paging]
    has_nx = hw.features.nx and hw.paging in ("4level", "5level")
    setup_paging(state, mode, hw.physical_bits, gigantic=hw.features.pdpe1gb, nx=has_nx)
    setup_tlbs(state, tlb, hw.walk_caches, mode)
    state.knob[Knob.PCID] = int(hw.pcid)
    state.knob[Knob.PTI] = int(hw.pti)
    state.knob[Knob.INVPCID] = int(hw.features.invpcid)
    state.knob[Knob.NX_BIT] = NX if has_nx else 0
    state.knob[Knob.EPT_LEVELS] = EPT_LEVELS if is_guest else 0


def load_registers(state: "State", hw: HwSpec, root_pfn: int) -> None:
    """Give every CPU the registers of a booted kernel, in kernel mode, on the table in ``root_pfn``."""
    for cpu in range(state.knob[Knob.NR_CPUS]):
        setup_registers(state, cpu, register_values(hw, root_pfn))
