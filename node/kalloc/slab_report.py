"""What the object allocators found wrong: the last reports, kept in a ring, and their wording.

    error  cache  address  | where and when it was found | who allocated and who freed the object last

Linux prints a page of text for each (object_err, slab_err); here it is one record, and one line:

    kmalloc-64: object 0x1234540: right red zone overwritten (allocated by CPU 1 at 52310 ns)

``slab_report[0]`` is no report: its ``serial`` counts the reports ever made.

Linux: mm/slub.c (object_err, slab_err, print_tracking).
"""

from typing import TYPE_CHECKING, Final

import numpy as np

from node.counters import Current
from node.kalloc.kmem_cache import MAX_CACHES, WORD_BYTES, WORD_SHIFT, SlabError, cache_name
from shared.constants import NIL, PS_PER_NS
from shared.jit import cold_kernel

if TYPE_CHECKING:
    from node.state import State

SLAB_REPORT = np.dtype(
    [
        ("serial", np.int64),  # from 1; 0: no report
        ("paddr", np.int64),  # of the object, or what was to be freed
        ("clock_ps", np.int64),  # when it was found
        ("alloc_ps", np.int64),  # when the object was last allocated, if alloc_cpu is not NIL
        ("free_ps", np.int64),
        ("error", np.int32),  # SlabError
        ("cache", np.int32),  # or NIL
        ("cpu", np.int32),  # that found it
        ("alloc_cpu", np.int32),  # that allocated the object last; NIL: not known
        ("free_cpu", np.int32),
        ("spare", np.int32),
    ],
    align=True,
)

NR_KEPT: Final = 16
NR_SLAB_REPORTS: Final = 1 + NR_KEPT  # records of state.slab_report

# The mark that a last user leaves in an object's slab (struct track of Linux, with CONFIG_STACKDEPOT).
# Differs from Linux: the code's address and stack are not known; the time is in picoseconds, not ticks.
TRACK_BYTES: Final = 32  # address, stack and CPU, process, time
TRACK_MADE: Final = 0  # word of a track that is not 0 once it was made: the code's address
TRACK_CPU: Final = 1
TRACK_WHEN: Final = 3
TRACK_CPU_SHIFT: Final = 32  # the stack's number is below it

WORDING: Final = {
    SlabError.DOUBLE_FREE: "freed twice",
    SlabError.FOREIGN_ADDRESS: "freed, but not the allocator's",
    SlabError.WRONG_CACHE: "freed to a cache that is not its own",
    SlabError.NOT_OBJECT_START: "freed, but not the start of an object",
    SlabError.LEFT_RED_ZONE: "left red zone overwritten",
    SlabError.RIGHT_RED_ZONE: "right red zone overwritten",
    SlabError.POISON: "written to after it was freed",
    SlabError.PADDING: "padding overwritten",
    SlabError.FREELIST: "link to the next free object overwritten",
    SlabError.OBJECTS_REMAIN: "still in use when its cache was to be destroyed",
    SlabError.SLAB_DISABLED: "in a slab that was taken out of use after an error",
}


@cold_kernel
def report(state: "State", error: int, cache: int, paddr: int, track: int) -> int:
    """Note what was found wrong with an object; return ``error``.

    ``track`` is the address of the marks of its last users, allocation first, or NIL.
    """
    head = state.slab_report[0]
    head.serial += 1
    made = state.slab_report[1 + (head.serial - 1) % NR_KEPT]
    made.serial = head.serial
    made.paddr = paddr
    made.clock_ps = state.current[Current.CLOCK_PS]
    made.error = error
    made.cache = cache
    made.cpu = state.current[Current.CPU]
    made.alloc_cpu = NIL
    made.free_cpu = NIL
    if track != NIL:
        allocated = track >> WORD_SHIFT
        freed = allocated + TRACK_BYTES // WORD_BYTES
        if state.slab_word[allocated + TRACK_MADE]:
            made.alloc_cpu = state.slab_word[allocated + TRACK_CPU] >> TRACK_CPU_SHIFT
            made.alloc_ps = state.slab_word[allocated + TRACK_WHEN]
        if state.slab_word[freed + TRACK_MADE]:
            made.free_cpu = state.slab_word[freed + TRACK_CPU] >> TRACK_CPU_SHIFT
            made.free_ps = state.slab_word[freed + TRACK_WHEN]
    return error


@cold_kernel
def forget_reports(state: "State", cache: int) -> None:
    """Keep the reports of a cache that ends, but not under a number that will be another's."""
    if cache <= 0 or cache >= MAX_CACHES:
        return
    for index in range(1, NR_SLAB_REPORTS):
        kept = state.slab_report[index]
        if kept.cache == cache:
            kept.cache = NIL


def nr_reports(state: "State") -> int:
    """Return how many errors were ever reported."""
    return int(state.slab_report[0].serial)


def slab_reports(state: "State") -> list[str]:
    """Return the last reports, oldest first, each as one line."""
    kept = [index for index in range(1, NR_SLAB_REPORTS) if state.slab_report[index].serial]
    return [_line(state, index) for index in sorted(kept, key=lambda i: state.slab_report[i].serial)]


def _line(state: "State", index: int) -> str:
    kept = state.slab_report[index]
    name = "no cache" if kept.cache == NIL else cache_name(state, kept.cache)
    users = []
    if kept.alloc_cpu != NIL:
        users.append(f"allocated by CPU {kept.alloc_cpu} at {kept.alloc_ps // PS_PER_NS} ns")
    if kept.free_cpu != NIL:
        users.append(f"freed by CPU {kept.free_cpu} at {kept.free_ps // PS_PER_NS} ns")
    found = f"found by CPU {kept.cpu} at {kept.clock_ps // PS_PER_NS} ns"
    return (
        f"{name}: object 0x{kept.paddr & (2**64 - 1):x}: {WORDING[SlabError(kept.error)]}"
        f" ({', '.join([*users, found])})"
    )
