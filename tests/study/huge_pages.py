"""What a host with transparent huge pages does to KSM, as far as a study of a recorded host needs it.

The simulated host has no huge pages. A host that has them maps 2 MiB at a guest's first touch; when ksmd merges a
page of them, Linux splits the huge page, and since 6.12 the split turns those of its pages that hold nothing
but zeroes into mappings of the page of zeroes, which ksmd does not see.

Linux: mm/huge_memory.c (split_huge_page, remap_page), mm/migrate.c (try_to_map_unused_to_zeropage).
"""

from typing import TYPE_CHECKING

from node.vm.unmap import zap_page_range
from shared.constants import PAGE_SHIFT, PAGE_SIZE
from shared.jit import entry

if TYPE_CHECKING:
    from node.state import State


@entry
def drop_pages(state: "State", guest_index: int, nr_gfns: int) -> int:
    """Take pages of a guest from its host, so that its next write faults; return how many were there.

    ``state.incoming`` holds the gfns.
    """
    guest = state.guest[guest_index]
    nr_dropped = 0
    for i in range(nr_gfns):
        vaddr = guest.ram_vaddr + (state.incoming[i] << PAGE_SHIFT)
        nr_dropped += zap_page_range(state, guest.mm, vaddr, vaddr + PAGE_SIZE)
    return nr_dropped
