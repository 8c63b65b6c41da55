"""The allocators' calls as entries: what Python calls, and kernels of other rooms through node.joints.

    from node.joints import kmalloc, kfree        in Python, and in kernels that can spare a call
    from node.kalloc.kmem_cache import kmalloc    in a kernel whose loop allocates

Creating, shrinking and destroying caches is in node/kalloc/cache_list.py, which node.joints declares too.
"""

from typing import TYPE_CHECKING

from node.kalloc import kmem_cache as kernels
from node.kalloc import slab_bytes
from shared.jit import entry

if TYPE_CHECKING:
    from node.state import State


@entry
def kmem_cache_alloc(state: "State", cache: int, gfp: int) -> int:
    """Return the physical address of a new object, or NIL if there is no memory."""
    return kernels.kmem_cache_alloc(state, cache, gfp)


@entry
def kmem_cache_free(state: "State", cache: int, paddr: int) -> int:
    """Take an object back; return 0, or a ``SlabError``."""
    return kernels.kmem_cache_free(state, cache, paddr)


@entry
def kmalloc(state: "State", size: int, gfp: int) -> int:
    """Return the physical address of ``size`` bytes, 1..KMALLOC_MAX_SIZE, or NIL without memory or beyond it."""
    return kernels.kmalloc(state, size, gfp)


@entry
def kfree(state: "State", paddr: int) -> int:
    """Take back what ``kmalloc`` gave; return 0, or a ``SlabError``."""
    return kernels.kfree(state, paddr)


@entry
def ksize(state: "State", paddr: int) -> int:
    """Return how many bytes the holder of ``paddr``, which kmalloc gave, may use; 0 for any other address."""
    return kernels.ksize(state, paddr)


@entry
def write_slab_bytes(state: "State", paddr: int, nr_bytes: int, value: int) -> int:
    """Write ``value``, 0..255, over bytes of slabs, as a user of an object may, too far or too late.

    Stops at the first frame that is no slab's; returns how many bytes were written.
    """
    return slab_bytes.write_slab_bytes(state, paddr, nr_bytes, value)
