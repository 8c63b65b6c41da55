"""The memory that describes a swap area: one byte a slot, and eight a cluster, taken by vmalloc at swapon.

    8 GiB of swap = 2097152 slots  ->  swap_map 2 MiB, cluster_info 64 KiB: no block of frames is as large as the first

What the bytes say is in ``state.swap_slot`` and ``state.swap_cluster`` (node/swap/slots.py); here the machine pays
for them.

Linux: mm/swapfile.c (SYSCALL_DEFINE2(swapon): vzalloc(maxpages), kvcalloc(nr_cluster, sizeof(*cluster_info))),
include/linux/swap.h (struct swap_cluster_info: a lock and a word).
# Differs from Linux: cluster_info is always from vmalloc; kvcalloc asks kmalloc first.
"""

from typing import TYPE_CHECKING, Final

from node.counters import Knob
from node.joints import vfree, vmalloc
from node.kalloc.vmap_area import VmapCaller
from node.swap.slots import nr_clusters
from shared.constants import NIL
from shared.gfp_flags import GFP_KERNEL, Gfp

if TYPE_CHECKING:
    from node.state import State

BYTES_PER_SLOT: Final = 1
BYTES_PER_CLUSTER: Final = 8


def allocate_swap_map(state: "State") -> None:
    """Allocate the maps of the machine's swap area. Raises ValueError, in one line, if there is no memory for them.

    A rotational area has no clusters. On a machine without paging, which has no vmalloc, nothing is allocated.
    """
    area = state.swap_area[0]
    if state.knob[Knob.NR_LEVELS] == 0 or area.nr_slots == 0:
        return
    area.map_vaddr = _zeroed(state, area.nr_slots * BYTES_PER_SLOT)
    if not area.rotational:
        area.cluster_vaddr = _zeroed(state, nr_clusters(area.nr_slots) * BYTES_PER_CLUSTER)


def free_swap_map(state: "State") -> None:
    """Free the maps of a swap area that is no longer used (swapoff)."""
    area = state.swap_area[0]
    for vaddr in (area.map_vaddr, area.cluster_vaddr):
        if vaddr:
            vfree(state, vaddr)
    area.map_vaddr = 0
    area.cluster_vaddr = 0


def _zeroed(state: "State", nr_bytes: int) -> int:
    vaddr = vmalloc(state, nr_bytes, GFP_KERNEL | Gfp.ZERO, VmapCaller.SWAPON)
    if vaddr == NIL:
        raise ValueError(f"swap.size: there is no memory for {nr_bytes} bytes of its map")
    return int(vaddr)
