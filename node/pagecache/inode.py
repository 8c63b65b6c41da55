"""Inodes: files and objects of shared memory, each with its pages in a tree and the areas that map it in another.

    inode --> radix tree --> frames           page number -> frame      node/pagecache/radix_tree.py
          --> i_mmap     --> areas            page number -> who maps it      node/vm/vma.py

An inode is held by its name and by every area that maps it. One of shared memory without a name, as a shared anonymous
mapping has, goes with the last area, and its pages go with it. A file's pages stay.

Linux: include/linux/fs.h (struct inode, struct address_space), mm/filemap.c (__filemap_add_folio,
delete_from_page_cache).
# Differs from Linux: a file's contents are resident, as if read long ago; a frame for a page is taken at its first use.
Nothing is read, written or dropped (the page cache is to come).
"""

from typing import TYPE_CHECKING, Final

import numpy as np

from node.content import PATTERN_FILE, generated, set_content
from node.counters import Current, VmStat
from node.hw.cost import Cost
from node.inode_kind import InodeKind
from node.pagecache.radix_tree import radix_erase, radix_find, radix_insert, radix_next
from node.phys.page import PageFlag
from node.phys.page_alloc import alloc_pages
from node.pool import Pool, pool_alloc, pool_free
from node.reclaim.lru import LruList, lru_add
from node.tree_nodes import inode_root
from node.vm.commit import uncommit
from node.vm.mlock_page import lru_add_evictable_or_not
from node.vm.put_page import put_page
from shared.constants import NIL
from shared.gfp_flags import GFP_HIGHUSER, GFP_HIGHUSER_MOVABLE
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State

INODE = np.dtype(
    [
        ("key", np.int64),  # seeds the contents of its pages
        ("nr_pages", np.int64),  # its size, rounded up to pages
        ("nr_cached", np.int64),  # pages in its tree
        ("nr_committed", np.int64),  # pages that it promised (shared memory)
        ("kind", np.int32),  # InodeKind
        ("refcount", np.int32),  # areas that map it, and its name
        ("radix_root", np.int32),
        ("radix_height", np.int32),
        ("shm_key", np.int64),  # of an object of shared memory with a name (node/pagecache/shm.py)
        ("shm_bytes", np.int64),
        ("shm_kind", np.int32),  # ShmKind
        ("keeps_areas_apart", np.int32),  # 1: areas that map it never merge (vm_ops->close)
    ],
    align=True,
)
MAX_INODES: Final = 1 << 14


@kernel
def new_inode_record(state: "State", kind: int, nr_pages: int) -> int:
    """Return an inode that only the caller holds, without pages; or NIL."""
    index = pool_alloc(state, Pool.INODE)
    if index == NIL:
        return NIL
    inode = state.inode[index]
    inode.key = 0
    inode.nr_pages = nr_pages
    inode.nr_cached = 0
    inode.nr_committed = 0
    inode.kind = kind
    inode.refcount = 1
    inode.radix_root = 0
    inode.radix_height = 0
    inode.shm_key = 0
    inode.shm_bytes = 0
    inode.shm_kind = 0
    inode.keeps_areas_apart = 0
    state.rb_root[inode_root(state, index)] = NIL
    return index


@entry
def new_file(state: "State", nr_pages: int, key: int) -> int:
    """Return a regular file of ``nr_pages`` whose contents are those of ``key``, held by its name; or NIL."""
    index = new_inode_record(state, InodeKind.REGULAR, nr_pages)
    if index != NIL:
        state.inode[index].key = key
    return index


@entry
def get_inode(state: "State", inode: int) -> int:
    """One more area maps the file, or has it open; return 0."""
    state.inode[inode].refcount += 1
    return 0


@entry
def is_regular_file(state: "State", inode: int) -> int:
    """Return whether an inode is of a file on a disk, not of shared memory."""
    return 1 if state.inode[inode].kind == InodeKind.REGULAR else 0


@kernel
def remove_from_cache(state: "State", inode: int, index: int) -> None:
    """Take a page that nobody maps out of its file, and let go of it (delete_from_page_cache)."""
    pfn = radix_find(state, inode, index)
    radix_erase(state, inode, index)
    record = state.inode[inode]
    record.nr_cached -= 1
    page = state.page[pfn]
    state.vm_stat[VmStat.NR_FILE_PAGES] -= 1
    if record.kind == InodeKind.SHMEM:
        state.vm_stat[VmStat.NR_SHMEM] -= 1
    elif page.page_flags & PageFlag.DIRTY:
        state.vm_stat[VmStat.NR_DIRTY] -= 1
    page.page_flags &= ~PageFlag.CACHED
    page.mapping = 0
    put_page(state, pfn)


@kernel
def truncate_inode_pages(state: "State", inode: int, first: int) -> int:
    """Drop the pages from number ``first`` on, which no area maps; return how many there were."""
    nr_pages = 0
    index = radix_next(state, inode, first)
    while index != NIL:
        remove_from_cache(state, inode, index)
        nr_pages += 1
        index = radix_next(state, inode, index + 1)
    return nr_pages


@entry
def truncate_pages(state: "State", inode: int, first: int) -> int:
    """Drop the pages from number ``first`` on, which no area maps; return how many there were."""
    return truncate_inode_pages(state, inode, first)


@entry
def put_inode(state: "State", inode: int) -> int:
    """One user of the file less; with the last, it goes, and its pages with it; return 0."""
    record = state.inode[inode]
    record.refcount -= 1
    if record.refcount == 0:
        truncate_inode_pages(state, inode, 0)
        uncommit(state, record.nr_committed)
        pool_free(state, Pool.INODE, inode)
    return 0


@kernel
def page_of_file(state: "State", inode: int, index: int) -> int:
    """Return the frame of page ``index`` of a file, brought into the cache if need be; or NIL without memory.

    The cache holds it; who maps it takes a reference of its own. A page of shared memory begins with zeroes.
    """
    pfn = radix_find(state, inode, index)
    if pfn != 0:
        return pfn
    record = state.inode[inode]
    pfn = alloc_pages(state, 0, GFP_HIGHUSER if record.kind == InodeKind.RAMFS else GFP_HIGHUSER_MOVABLE)
    if pfn == NIL:
        return NIL
    if radix_insert(state, inode, index, pfn) == NIL:
        put_page(state, pfn)
        return NIL
    record.nr_cached += 1
    page = state.page[pfn]
    page.page_flags |= PageFlag.CACHED
    page.mapping = inode
    page.index = index
    state.vm_stat[VmStat.NR_FILE_PAGES] += 1
    if record.kind == InodeKind.SHMEM:
        state.vm_stat[VmStat.NR_SHMEM] += 1
        page.page_flags |= PageFlag.SWAPBACKED
        lru_add(state, LruList.INACTIVE_ANON, pfn)
    else:
        set_content(state, pfn, generated(PATTERN_FILE, record.key, index))
        lru_add_evictable_or_not(state, LruList.INACTIVE_FILE, pfn)
    state.current[Current.CLOCK_PS] += state.cost[Cost.PAGE_ZERO]
    return pfn
