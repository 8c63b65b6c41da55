"""SLAB and NUMA: which node a frame and a CPU belong to. An array holds only objects of its CPU's own node.

    CPU of node 0 --> its array: objects of node 0 only
         |
         +--- frees an object of node 1 --> node 1's slabs, at once

Linux: mm/slab.c (slab_nid, cache_free_alien), include/linux/topology.h (numa_mem_id).
# Differs from Linux: SLAB gathers objects of another node in an "alien" array first, up to 12; here each goes to
# that node's slabs by itself, as with the boot option noaliencache.
"""

from typing import TYPE_CHECKING

from node.counters import Current, Knob
from node.phys.migrate_type import zone_of
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def nid_of(state: "State", pfn: int) -> int:
    """Return the NUMA node of a frame."""
    return state.zone[zone_of(state, pfn)].nid


@kernel
def nid_here(state: "State") -> int:
    """Return the NUMA node whose memory is nearest to the current CPU (numa_mem_id)."""
    return state.cpu[state.current[Current.CPU]].nid


@kernel
def nr_cpus_of(state: "State", nid: int) -> int:
    """Return how many CPUs a NUMA node has (nr_cpus_node)."""
    found = 0
    for cpu in range(state.knob[Knob.NR_CPUS]):
        if state.cpu[cpu].nid == nid:
            found += 1
    return found
