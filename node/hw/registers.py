"""The registers that steer translation, and the instructions that change them or drop translations.

    CR0    PE, WP, PG              CR4    PSE, PAE, PGE, LA57, PCIDE, SMEP, SMAP, PKE
    CR3    63 62    52 51 ........ 12 11 .. 0         EFER   LME, LMA, NXE       PKRU   two bits a key
           no        frame of the      PCID if
           flush     top table         PCIDE

What each drops (Intel SDM volume 3, 4.10.4.1):

    MOV to CR3, PCIDE = 0              everything but global entries
    MOV to CR3, PCIDE = 1, bit 63 = 0  what is tagged with the new PCID, but global entries
    MOV to CR3, PCIDE = 1, bit 63 = 1  nothing
    MOV to CR4 that changes PGE, or clears PCIDE, or sets SMEP; MOV to CR0 that clears PG    everything
    INVLPG                             the page, of the current PCID and global, and all walk caches of the PCID
    INVPCID 0, 1, 2, 3                 a page of a PCID; a PCID; everything; everything but global entries

The processor refuses (#GP) to set PCIDE while CR3 holds a PCID or outside IA-32e mode, and bit 63 of CR3 where
PCIDE is 0. All work on the current CPU.
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from node.counters import Current, HwEvent
from node.hw.cost import Cost
from node.hw.pte import PFN_MASK
from node.hw.tlb import KEY_VALID, NO_TAG, PCID_MASK
from node.hw.tlb_drop import drop_all, drop_page, drop_pcid, drop_private
from shared.constants import PAGE_SHIFT
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State


class Cr0(IntEnum):
    """Bits of CR0."""

    PE = 1 << 0
    WP = 1 << 16
    PG = 1 << 31


class Cr4(IntEnum):
    """Bits of CR4."""

    PSE = 1 << 4
    PAE = 1 << 5
    PGE = 1 << 7
    LA57 = 1 << 12
    PCIDE = 1 << 17
    SMEP = 1 << 20
    SMAP = 1 << 21
    PKE = 1 << 22


class Efer(IntEnum):
    """Bits of IA32_EFER."""

    LME = 1 << 8
    LMA = 1 << 10
    NXE = 1 << 11


class FaultVector(IntEnum):
    """Vectors of exceptions that a translation can raise."""

    NONE = 0
    GENERAL_PROTECTION = 13
    PAGE_FAULT = 14


class FaultCode(IntEnum):
    """Bits of a page fault's error code (SDM volume 3, 4.7)."""

    PRESENT = 1 << 0  # the page is there, and its rights forbid the access
    WRITE = 1 << 1
    USER = 1 << 2
    RESERVED = 1 << 3
    FETCH = 1 << 4
    KEY = 1 << 5


class Invpcid(IntEnum):
    """Types of INVPCID."""

    ADDRESS = 0
    PCID = 1
    ALL = 2
    ALL_PRIVATE = 3


CR3_NO_FLUSH: Final = -(1 << 63)
REFUSED: Final = 1  # the processor raises #GP
PKRU_ACCESS_DISABLE: Final = 1
PKRU_WRITE_DISABLE: Final = 2
PKRU_KEY_MASK: Final = PKRU_ACCESS_DISABLE | PKRU_WRITE_DISABLE


@kernel
def cr3_root(cr3: int) -> int:
    """Return the frame of the top-level table."""
    return (cr3 >> PAGE_SHIFT) & PFN_MASK


@kernel
def set_tag(state: "State", cpu: int) -> None:
    """Give look-ups the tag that CR3 and CR4 say: no PCID unless CR4.PCIDE is set."""
    record = state.cpu[cpu]
    record.tlb_tag = KEY_VALID | (record.cr3 & PCID_MASK if record.cr4 & Cr4.PCIDE else 0)
    # Pages with another key are marked in the TLBs; those with key 0 are not.
    forbids_key_0 = record.cr4 & Cr4.PKE and record.pkru & PKRU_KEY_MASK
    record.fast_tag = NO_TAG if forbids_key_0 or not record.cr0 & Cr0.PG else record.tlb_tag


@kernel
def write_pkru(state: "State", value: int) -> None:
    """Load PKRU (WRPKRU): for each of 16 keys, from the lowest bits up, access disable and write disable."""
    cpu = state.current[Current.CPU]
    state.cpu[cpu].pkru = value
    set_tag(state, cpu)


@kernel
def write_cr3(state: "State", value: int) -> int:
    """Load CR3; bit 63 of ``value`` keeps translations. Returns REFUSED if PCIDE is 0 and bit 63 set, else 0."""
    cpu = state.current[Current.CPU]
    record = state.cpu[cpu]
    has_pcids = record.cr4 & Cr4.PCIDE
    if value < 0 and not has_pcids:
        return REFUSED
    state.hw_event[HwEvent.CR3_WRITE] += 1
    state.current[Current.CLOCK_PS] += state.cost[Cost.CR3_WRITE]
    record.cr3 = value & ~CR3_NO_FLUSH
    set_tag(state, cpu)
    if value >= 0:
        state.hw_event[HwEvent.CR3_FLUSH] += 1
        if has_pcids:
            drop_pcid(state, cpu, value & PCID_MASK)
        else:
            drop_private(state, cpu)
    return 0


@kernel
def write_cr4(state: "State", value: int) -> int:
    """Load CR4. Returns REFUSED if it sets PCIDE outside IA-32e mode or while CR3 holds a PCID, else 0."""
    cpu = state.current[Current.CPU]
    record = state.cpu[cpu]
    changed = record.cr4 ^ value
    sets_pcide = changed & value & Cr4.PCIDE
    if sets_pcide and (not record.efer & Efer.LMA or record.cr3 & PCID_MASK):
        return REFUSED
    if record.cr0 & Cr0.PG and changed & (Cr4.PAE | Cr4.LA57):
        return REFUSED
    record.cr4 = value
    if changed & Cr4.PGE or changed & ~value & Cr4.PCIDE or changed & value & Cr4.SMEP:
        drop_all(state, cpu)
    set_tag(state, cpu)
    return 0


@kernel
def write_cr0(state: "State", value: int) -> int:
    """Load CR0; clearing PG drops all translations. Returns REFUSED for PG without PE, or without PG with PCIDE."""
    cpu = state.current[Current.CPU]
    record = state.cpu[cpu]
    if value & Cr0.PG and not value & Cr0.PE:
        return REFUSED
    if not value & Cr0.PG and record.cr4 & Cr4.PCIDE:
        return REFUSED
    if record.cr0 & ~value & Cr0.PG:
        drop_all(state, cpu)
    record.cr0 = value
    set_tag(state, cpu)
    return 0


@kernel
def invlpg(state: "State", vaddr: int) -> None:
    """Drop the translations of the page of ``vaddr``, global ones too, and the walk caches of the current PCID."""
    cpu = state.current[Current.CPU]
    drop_page(state, cpu, vaddr, state.cpu[cpu].tlb_tag & PCID_MASK, 1)


@kernel
def invpcid(state: "State", kind: int, pcid: int, vaddr: int) -> None:
    """Drop what ``kind``, an Invpcid, says."""
    cpu = state.current[Current.CPU]
    if kind == Invpcid.ADDRESS:
        drop_page(state, cpu, vaddr, pcid, 0)
    elif kind == Invpcid.PCID:
        drop_pcid(state, cpu, pcid)
    elif kind == Invpcid.ALL:
        drop_all(state, cpu)
    else:
        drop_private(state, cpu)


def setup_registers(state: "State", cpu: int, values: dict[str, int]) -> None:
    """Give a CPU's registers the values they have when the kernel has booted; keys are the record's fields."""
    record = state.cpu[cpu]
    for name, value in values.items():
        setattr(record, name, value)
    record.tlb_tag = KEY_VALID | (record.cr3 & PCID_MASK if record.cr4 & Cr4.PCIDE else 0)
    record.fast_tag = record.tlb_tag if record.cr0 & Cr0.PG else NO_TAG
