"""Why an access faulted, in words, and what Linux does about it.

    vector, CR2 and error code  ->  one sentence      "write to a page that is not present, from user mode"
    the process's areas         ->  what comes next   an area is there: serve_fault; else a signal, or an oops

The hardware has decided when this is asked. Why it did follows from the error code (SDM volume 3, 4.7) and the
levels' bits; what Linux does from the order of checks in arch/x86/mm/fault.c (do_kern_addr_fault,
do_user_addr_fault, access_error, vmalloc_fault), which the machine's own handler follows too.
"""

from typing import TYPE_CHECKING, Any, Final

from node.counters import Era, Knob
from node.explain.tables import Place, entry_position, hex_word
from node.hw.paging import AccessKind, PagingMode
from node.hw.pte import Pte
from node.hw.registers import Cr0, Cr4, FaultCode, FaultVector
from node.kmap.asid import INIT_MM
from node.vm.vma import VmFlag
from shared.constants import NIL

if TYPE_CHECKING:
    from node.state import State

VERBS: Final = {
    AccessKind.READ: "read of",
    AccessKind.WRITE: "write to",
    AccessKind.EXECUTE: "instruction fetch from",
}
_VMA_RIGHTS: Final = {VmFlag.READ: "r", VmFlag.WRITE: "w", VmFlag.EXEC: "x"}
_CODE_NAMES: Final = {
    FaultCode.PRESENT: "P",
    FaultCode.WRITE: "W/R",
    FaultCode.USER: "U/S",
    FaultCode.RESERVED: "RSVD",
    FaultCode.FETCH: "I/D",
    FaultCode.KEY: "PK",
}

# What happens next; the values are words of the JSON.
SERVED: Final = "serve_fault"  # handle_mm_fault, and the access is tried again
SYNCED: Final = "sync_kernel_entry"  # vmalloc_fault
SIGNAL: Final = "signal"
OOPS: Final = "oops"


# --- why ------------------------------------------------------------------------------------------------


def describe_fault(place: Place, kind: AccessKind, levels: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the fault that the CPU's registers hold, and the sentence that says why."""
    registers = place.registers
    vector = FaultVector(int(registers.fault_vector))
    mode = "user mode" if registers.cpl else "kernel mode"
    fault: dict[str, Any] = {"result": "fault", "vector": int(vector)}
    if vector == FaultVector.GENERAL_PROTECTION:
        because = f"{VERBS[kind]} {_why_no_address(place)}, from {mode}"
        return fault | {"name": "#GP", "error_code": "0x0", "error_bits": [], "because": because}
    code = int(registers.error_code)
    return fault | {
        "name": "#PF",
        "cr2": hex_word(int(registers.cr2), place.mode),
        "error_code": f"{code:#x}",
        "error_bits": [name for bit, name in _CODE_NAMES.items() if code & bit],
        "because": f"{VERBS[kind]} {_why(place, kind, code, levels)}, from {mode}",
    }


def _why_no_address(place: Place) -> str:
    if not int(place.registers.cr0) & Cr0.PG:
        return "an address behind the memory"
    bits = place.mode.linear_bits
    return f"an address that is not canonical (bits 63 to {bits - 1} are not all alike)"


def _why(place: Place, kind: AccessKind, code: int, levels: list[dict[str, Any]]) -> str:
    last = levels[-1]
    if not code & FaultCode.PRESENT:
        return f"a page that is not present (the {last['level']} entry's P is 0)"
    if code & FaultCode.RESERVED:
        if last["leads_to"] == "no memory":
            return f"a page whose {last['level']} table would lie behind the memory, where all reads as ones"
        return f"a page whose {last['level']} entry has reserved bits set ({last['reserved_bits']})"
    if code & FaultCode.KEY:
        return f"a page whose protection key {last['key']} PKRU closes"
    return _which_right(place, kind, levels)


def _which_right(place: Place, kind: AccessKind, levels: list[dict[str, Any]]) -> str:
    """Name the rule of SDM volume 3, 4.6.1, that forbids an access to a page that is there."""
    rights = levels[-1]["rights"]
    from_user = bool(place.registers.cpl)
    if from_user and not rights["user"]:
        return f"a page that belongs to the kernel (U/S is 0 in {_levels_with(levels, 'U/S', 0)})"
    if kind == AccessKind.EXECUTE:
        if not rights["execute"]:
            return f"a page that must not be executed (XD is 1 in {_levels_with(levels, 'XD', 1)})"
        return "a user page (CR4.SMEP forbids the kernel to execute it)"
    if not from_user and rights["user"] and int(place.registers.cr4) & Cr4.SMAP and not place.registers.ac:
        return "a user page (CR4.SMAP forbids it to the kernel while EFLAGS.AC is 0)"
    return f"a page that is read-only (R/W is 0 in {_levels_with(levels, 'R/W', 0)})"


def _levels_with(levels: list[dict[str, Any]], bit: str, value: int) -> str:
    return " and ".join(level["level"] for level in levels if level["bits"].get(bit) == value)


# --- the process ----------------------------------------------------------------------------------------


def area_at(state: "State", mm_index: int, vaddr: int) -> dict[str, Any] | None:
    """Return the area of a process that holds an address, or None; nothing is changed by looking."""
    if mm_index == INIT_MM:
        return None
    index = int(state.mm[mm_index].first_vma)
    while index != NIL:
        vma = state.vma[index]
        if int(vma.start) <= vaddr < int(vma.end):
            flags = int(vma.vm_flags)
            rights = "".join(letter if flags & bit else "-" for bit, letter in _VMA_RIGHTS.items())
            last = int(vma.end) - 1
            return {"first": f"{int(vma.start):#x}", "last": f"{last:#x}", "rights": rights}
        index = int(vma.next)
    return None


# --- what Linux does ------------------------------------------------------------------------------------


def what_linux_does(
    place: Place, kind: AccessKind, mm_index: int, levels: list[dict[str, Any]], *, in_user_space: bool
) -> dict[str, Any]:
    """Return what the kernel does about the fault that the CPU's registers hold: an action, and in words."""
    registers = place.registers
    if int(registers.fault_vector) == FaultVector.GENERAL_PROTECTION:
        return _end(place, "a general protection fault is never served")
    if not in_user_space:
        return _at_kernel_address(place, mm_index)
    if int(registers.error_code) & FaultCode.RESERVED:
        return _end(place, "the page table is corrupted")
    if not registers.cpl and _surprises_kernel(place, kind, mm_index):
        return _end(place, "this is no copy_from_user")
    why = _why_not_served(place, kind, mm_index)
    return _end(place, why) if why else {"action": SERVED, "says": _how_served(kind, levels)}


def _surprises_kernel(place: Place, kind: AccessKind, mm_index: int) -> bool:
    """Return whether the kernel itself had no business at an address of user space."""
    registers = place.registers
    is_closed = bool(int(registers.cr4) & Cr4.SMAP) and not registers.ac
    return mm_index == INIT_MM or kind == AccessKind.EXECUTE or is_closed


def _why_not_served(place: Place, kind: AccessKind, mm_index: int) -> str:
    """Return why the process's areas do not allow the access, or "" if they do."""
    code = int(place.registers.error_code)
    area = area_at(place.state, mm_index, place.vaddr)
    if area is None:
        return "the process has no area there (SEGV_MAPERR)"
    if code & FaultCode.KEY:
        return "a protection key forbids it (SEGV_PKUERR)"
    wanted = {AccessKind.READ: "rwx", AccessKind.WRITE: "w", AccessKind.EXECUTE: "x"}[kind]
    present_read = kind == AccessKind.READ and code & FaultCode.PRESENT
    if present_read or not set(wanted) & set(area["rights"]):
        return f"the process's area there is {area['rights']} (SEGV_ACCERR)"
    return ""


def _end(place: Place, why: str) -> dict[str, Any]:
    if place.registers.cpl:
        return {"action": SIGNAL, "says": f"ends the process with SIGSEGV: {why}"}
    return {"action": OOPS, "says": f"prints an oops, unless it foresaw the fault: {why}"}


def _at_kernel_address(place: Place, mm_index: int) -> dict[str, Any]:
    if place.registers.cpl:
        return _end(place, "the address is the kernel's (SEGV_MAPERR)")
    if mm_index != INIT_MM and _master_has_more(place, mm_index):
        return {
            "action": SYNCED,
            "says": "copies the top-level entry that its own table got since (vmalloc_fault), and tries again",
        }
    return _end(place, "its own page table does not map that")


def _master_has_more(place: Place, mm_index: int) -> bool:
    """Return whether a process lacks a top-level entry of vmalloc, which older and 32-bit kernels copy late."""
    knob = place.state.knob
    if knob[Knob.ERA] == Era.LINUX_6_1 and knob[Knob.PAGING_MODE] != PagingMode.BITS_32:
        return False
    if not knob[Knob.VMALLOC_START] <= place.vaddr <= knob[Knob.VMALLOC_LAST]:
        return False
    words = place.state.pt_word
    own = int(words[entry_position(place, 0, int(place.state.mm[mm_index].pgd_pfn))])
    master = int(words[entry_position(place, 0, int(knob[Knob.SWAPPER_PGD]))])
    return not own & Pte.PRESENT and bool(master & Pte.PRESENT)


def _how_served(kind: AccessKind, levels: list[dict[str, Any]]) -> str:
    """Say what handle_mm_fault does for an entry as the walk found it."""
    last = levels[-1]
    if last["leads_to"] == "swap" and last["level"] != "PTE":
        return f"brings the page table back from swap slot {last['swap_slot']} and tries again"
    if last["leads_to"] == "swap":
        return f"brings the page back from swap slot {last['swap_slot']} and tries again"
    if last["leads_to"] == "page":
        return "copies the page, or takes it over if nobody else has it, and tries again"
    if kind == AccessKind.WRITE:
        return "maps a frame of zeroes, with the tables that lead there, and tries again"
    return "maps the shared page of zeroes, read-only, and tries again"
