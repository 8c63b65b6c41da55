"""Shared memory: objects of tmpfs, which shared anonymous mappings, System V and POSIX shared memory all are.

    mmap(MAP_SHARED | MAP_ANONYMOUS)   an object without a name, gone with its last area
    shmget(key), shm_open(name)        an object with a name, which stays until that is removed and no area maps it

Its pages are zeroes until written, count as NR_SHMEM, stand in NR_FILE_PAGES, and lie on the LRU lists of anonymous
memory, since reclaim would have to write them to swap. The object is a promise of its full size (Committed_AS).

Linux: mm/shmem.c (__shmem_file_setup, shmem_get_folio_gfp), ipc/shm.c (newseg, do_shmat, do_shm_rmid).
# Differs from Linux: pages of shared memory are not swapped out yet.
"""

from typing import TYPE_CHECKING

from node.counters import Current
from node.inode_kind import InodeKind
from node.pagecache.inode import new_inode_record
from node.pool import Pool, pool_free
from node.vm.commit import vm_enough_memory
from shared.constants import NIL
from shared.jit import entry

if TYPE_CHECKING:
    from node.state import State


@entry
def new_shmem_inode(state: "State", nr_pages: int, is_accounted: int) -> int:
    """Return an object of shared memory of ``nr_pages``, held by the caller; or NIL: too much is promised."""
    index = new_inode_record(state, InodeKind.SHMEM, nr_pages)
    if index == NIL:
        return NIL
    if is_accounted:
        if vm_enough_memory(state, state.current[Current.MM], nr_pages) == NIL:
            pool_free(state, Pool.INODE, index)
            return NIL
        state.inode[index].nr_committed = nr_pages
    return index
