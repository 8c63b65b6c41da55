"""SLUB's fast paths: an object from the CPU's freelist, and one back to it.

    alloc    freelist --> A --> B --> C            free B    freelist --> C
             returns A, freelist --> B                       freelist --> B --> C

Nearly every call ends here, so this is all that a loop gets of SLUB in its own machine code. In Linux it is one
cmpxchg of two words, freelist and tid: whoever came in between, on the same CPU, has changed the tid.

An object may be freed here if it is in the CPU's slab, which is asked of its link: so that no free, whatever its
address, writes outside of that slab. The cheapest check for a double free is made, which hardened kernels make too:
an object cannot be freed when it is the first free one already. Any other double free makes a circle of the list,
and two users get the same object, as in Linux.

Linux: mm/slub.c (slab_alloc_node, do_slab_free).
# Differs from Linux: the check is made though CONFIG_SLAB_FREELIST_HARDENED is off, and such a free is refused.
"""

from typing import TYPE_CHECKING

from node.counters import Current, Knob
from node.hw.cost import Cost
from node.kalloc.kmem_cache import NO_OBJECT, WORD_SHIFT
from node.kalloc.slub_slab import broken_link
from node.kalloc.slub_slow import freed_twice, slub_alloc_slow, slub_free_slow
from shared.constants import PAGE_SHIFT
from shared.jit import hot_kernel

if TYPE_CHECKING:
    from node.state import State


@hot_kernel
def slub_alloc(state: "State", cache: int, gfp: int) -> int:
    """Return the physical address of a new object, or NIL if there is no memory."""
    cpu = state.kmem_cache_cpu[cache * state.knob[Knob.NR_CPUS] + state.current[Current.CPU]]
    paddr = cpu.freelist
    if paddr == NO_OBJECT:
        return slub_alloc_slow(state, cache, gfp)
    offset = cpu.link_offset
    following = state.slab_word[(paddr + offset) >> WORD_SHIFT]
    frame = ((following + offset) >> PAGE_SHIFT) - cpu.slab
    if (frame < 0 or frame >= cpu.nr_frames) and following != NO_OBJECT:
        following = broken_link(state, cache, paddr)
    cpu.freelist = following
    cpu.tid += 1
    cpu.alloc_fastpath += 1
    state.kmem_cache[cache].nr_objects += 1
    state.current[Current.CLOCK_PS] += state.cost[Cost.SLUB_ALLOC_FAST]
    return paddr


@hot_kernel
def slub_free(state: "State", cache: int, paddr: int) -> int:
    """Take an object back; return 0, or a ``SlabError``."""
    cpu = state.kmem_cache_cpu[cache * state.knob[Knob.NR_CPUS] + state.current[Current.CPU]]
    link = paddr + cpu.link_offset
    frame = (link >> PAGE_SHIFT) - cpu.slab
    if frame < 0 or frame >= cpu.nr_frames:
        return slub_free_slow(state, cache, paddr)
    following = cpu.freelist
    if following == paddr:
        return freed_twice(state, cache, paddr)
    state.slab_word[link >> WORD_SHIFT] = following
    cpu.freelist = paddr
    cpu.tid += 1
    cpu.free_fastpath += 1
    state.kmem_cache[cache].nr_objects -= 1
    state.current[Current.CLOCK_PS] += state.cost[Cost.SLUB_FREE_FAST]
    return 0
