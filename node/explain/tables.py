"""What the page tables hold for an address: each level's entry, taken apart.

    CR3 -> [PGD: index, where the entry stands, its value, its bits] -> [P4D] -> ... -> page, or where it ends

Nothing is decided here. The levels, shifts, page sizes and reserved bits are those that the walk itself reads
(``state.paging_level``), the entries are words of the machine's memory, and whether the access is let through,
the machine says. What an upper level's entry does to the rights of all is added up, so that a reader sees where
a right was lost.

Source: Intel SDM volume 3, tables 4-4 to 4-20 (entries).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from node.counters import Knob
from node.hw.memory_type import PAT_FIELD_BITS, PAT_TYPE_MASK, MemoryType
from node.hw.paging import PAGING_MODES, Mode, PageSize, PagingMode
from node.hw.pte import (
    NX,
    PFN_MASK,
    PKEY_MASK,
    PKEY_SHIFT,
    PROT_NONE,
    SWAP_OFFSET_MASK,
    SWAP_OFFSET_SHIFT,
    Pte,
)
from node.hw.registers import Cr4, Efer
from node.hw.walk import PSE36_FRAME_SHIFT, PSE36_MASK, PSE36_SHIFT
from node.kmap.entry import USER_PGD_BIT
from shared.constants import PAGE_SHIFT
from shared.wrap64 import to_unsigned

if TYPE_CHECKING:
    from node.state import State

WORD_BITS: Final = 64
BITS_PER_BYTE: Final = 8
DIGITS_PER_BYTE: Final = 2  # hexadecimal
PAT_HIGH: Final = 4  # what the bit called PAT adds to the index
XD_SHIFT: Final = WORD_BITS - 1


@dataclass(frozen=True, slots=True)
class Place:
    """Whose translation: a CPU's registers, and an address as kernels know it (signed)."""

    state: "State"
    cpu: int
    vaddr: int

    @property
    def registers(self) -> Any:
        """The CPU's record."""
        return self.state.cpu[self.cpu]

    @property
    def mode(self) -> Mode:
        """The machine's paging mode."""
        return PAGING_MODES[PagingMode(self.state.knob[Knob.PAGING_MODE])]


def hex_word(value: int, mode: Mode) -> str:
    """Write an address or an entry in full width; signed values become the unsigned ones they stand for."""
    nr_bytes = mode.entry_bytes or WORD_BITS // BITS_PER_BYTE
    return f"0x{to_unsigned(value):0{DIGITS_PER_BYTE * nr_bytes}x}"


def read_levels(place: Place) -> list[dict[str, Any]]:
    """Return the entry of each level for the address, from the top down to the page or to where the way ends."""
    levels: list[dict[str, Any]] = []
    table = int(place.registers.cr3) >> PAGE_SHIFT & PFN_MASK
    rights = {"write": True, "user": True, "execute": True}
    for number in range(len(place.mode.levels)):
        row = _read_entry(place, number, table)
        levels.append(row)
        if row["leads_to"] not in ("table", "page"):
            break
        bits = row["bits"]
        rights = {
            "write": rights["write"] and bool(bits["R/W"]),
            "user": rights["user"] and bool(bits["U/S"]),
            "execute": rights["execute"] and not bits.get("XD", 0),
        }
        row["rights"] = rights
        if row["leads_to"] == "page":
            break
        table = int(row["frame"], 16)
    return levels


def entry_position(place: Place, number: int, table: int) -> int:
    """Return where in ``pt_word`` a level's entry for the address stands."""
    here = place.state.paging_level[number]
    index = place.vaddr >> int(here.shift) & int(here.index_mask)
    return (table << place.mode.table_shift) + index


def _read_entry(place: Place, number: int, table: int) -> dict[str, Any]:
    mode = place.mode
    level = mode.levels[number]
    position = entry_position(place, number, table)
    index = position - (table << mode.table_shift)
    row: dict[str, Any] = {
        "level": level.linux,
        "intel": level.intel,
        "index": index,
        "table_frame": f"{table:#x}",
        "entry_address": f"{(table << PAGE_SHIFT) + index * mode.entry_bytes:#x}",
    }
    if table >= place.state.knob[Knob.NR_FRAMES]:
        return row | {"value": None, "leads_to": "no memory"}
    word = int(place.state.pt_word[position])
    row["value"] = hex_word(word, mode)
    row |= _decode(place, number, word)
    if number == 0 and place.state.knob[Knob.PTI]:
        row["other_copy"] = _other_copy(place, position)
    return row


def _other_copy(place: Place, position: int) -> dict[str, Any]:
    """Return the entry beside a top-level one: what the other of KPTI's two tables has there."""
    is_user_copy = bool(int(place.registers.cr3) & USER_PGD_BIT)
    word = int(place.state.pt_word[position ^ (1 << place.mode.table_shift)])
    return {
        "copy": "kernel" if is_user_copy else "user",
        "value": hex_word(word, place.mode),
        "present": bool(word & Pte.PRESENT),
    }


def maps_page(place: Place, number: int, word: int) -> bool:
    """Return whether a present entry of a level maps a page."""
    if number == len(place.mode.levels) - 1:
        return True
    large = bool(word & Pte.HUGE) and bool(place.state.paging_level[number].leaf)
    return large and bool(int(place.registers.cr4) & (Cr4.PAE | Cr4.PSE))


def _decode(place: Place, number: int, word: int) -> dict[str, Any]:
    """Take an entry apart: where it leads, its bits, and what is wrong with it."""
    if not word & Pte.PRESENT:
        return _decode_absent(word)
    record = place.state.paging_level[number]
    is_page = maps_page(place, number, word)
    reserved = word & int(record.reserved_leaf if is_page else record.reserved)
    if word < 0 and not int(place.registers.efer) & Efer.NXE:
        reserved |= NX
    row: dict[str, Any] = {
        "leads_to": "page" if is_page else "table",
        "bits": _named_bits(place, number, word, is_page=is_page),
        "frame": f"{_frame(place, number, word, is_page=is_page):#x}",
    }
    if is_page:
        row["page_size"] = place.mode.levels[number].page_name
    if is_page and int(place.registers.cr4) & Cr4.PKE:
        row["key"] = word >> PKEY_SHIFT & PKEY_MASK
    if reserved:
        row |= {"leads_to": "reserved bits", "reserved_bits": hex_word(reserved, place.mode)}
    return row


def _decode_absent(word: int) -> dict[str, Any]:
    if word == 0:
        return {"leads_to": "nothing", "bits": {"P": 0}}
    if word & PROT_NONE:
        return {
            "leads_to": "nothing (PROT_NONE)",
            "bits": {"P": 0},
            "frame": f"{word >> PAGE_SHIFT & PFN_MASK:#x}",
        }
    slot = ~(word >> SWAP_OFFSET_SHIFT) & SWAP_OFFSET_MASK
    return {"leads_to": "swap", "bits": {"P": 0}, "swap_slot": slot}


def _named_bits(place: Place, number: int, word: int, *, is_page: bool) -> dict[str, int]:
    """Return the bits that mean something in an entry of this kind, by the manual's names, from bit 0 up."""
    names = {"P": Pte.PRESENT, "R/W": Pte.WRITE, "U/S": Pte.USER, "PWT": Pte.WRITE_THROUGH}
    names |= {"PCD": Pte.CACHE_DISABLE, "A": Pte.ACCESSED}
    is_last = number == len(place.mode.levels) - 1
    if is_page:
        names["D"] = Pte.DIRTY
    if not is_last:
        names["PS"] = Pte.HUGE
    if is_page:
        names["PAT"] = Pte.HUGE if is_last else Pte.PAT_LARGE
        names["G"] = Pte.GLOBAL
    bits = {name: int(bool(word & bit)) for name, bit in names.items()}
    if int(place.registers.efer) & Efer.LMA:
        bits["XD"] = word >> XD_SHIFT & 1
    return bits


def _frame(place: Place, number: int, word: int, *, is_page: bool) -> int:
    """Return the frame of the table or the first frame of the page that an entry leads to."""
    frame = word >> PAGE_SHIFT & PFN_MASK
    level = place.mode.levels[number]
    if not is_page or level.page_size == PageSize.SMALL:
        return frame
    frame = frame >> (level.shift - PAGE_SHIFT) << (level.shift - PAGE_SHIFT)
    if place.mode.entry_bytes * BITS_PER_BYTE < WORD_BITS:
        frame |= (word >> PSE36_SHIFT & PSE36_MASK) << PSE36_FRAME_SHIFT
    return frame


def page_of(place: Place, levels: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return what the tables say of the page at the address, or None if they map none."""
    if not levels or levels[-1]["leads_to"] != "page":
        return None
    last = levels[-1]
    shift = place.mode.levels[len(levels) - 1].shift
    offset = place.vaddr & ((1 << shift) - 1)
    return {
        "page_size": last["page_size"],
        "physical_address": f"{(int(last['frame'], 16) << PAGE_SHIFT) + offset:#x}",
        "memory_type": memory_type_name(int(place.registers.pat), _pat_index(last["bits"])),
        "global": bool(last["bits"]["G"]) and bool(int(place.registers.cr4) & Cr4.PGE),
        "rights": last["rights"],
        "key": last.get("key"),
    }


def _pat_index(bits: dict[str, int]) -> int:
    return bits["PWT"] + 2 * bits["PCD"] + PAT_HIGH * bits["PAT"]


def memory_type_name(pat: int, index: int) -> str:
    """Return the name of the memory type in a field of IA32_PAT: WB, UC- and so on."""
    kind = MemoryType(pat >> (PAT_FIELD_BITS * index) & PAT_TYPE_MASK)
    return "UC-" if kind == MemoryType.UC_MINUS else kind.name
