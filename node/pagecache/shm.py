"""Shared memory with a name: System V segments, found by a number, and POSIX objects, found by a path in tmpfs.

    shmget(key) --> segment --shmat--> an area of each process        shmctl(IPC_RMID): gone with the last area
    shm_open(name) --> object --mmap--> an area of each process       shm_unlink: likewise

Both are inodes of shared memory that their name holds, and every area that maps them (node/pagecache/inode.py). A
segment's identifier is its inode. How many areas have it attached is what holds it beside its name.

Linux: ipc/shm.c (newseg, shmget, do_shmat, ksys_shmdt, shmctl_down), ipc/util.c (ipcget), include/uapi/linux/shm.h;
mm/shmem.c for shm_open, which is open() in /dev/shm.
# Differs from Linux: no owners and modes; a POSIX object promises its full size at ftruncate, not page by page; private
copies of pages behind a new end stay.
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from node.counters import Current, Knob, Request
from node.errno import Errno
from node.inode_kind import InodeKind
from node.joints import do_mmap, munmap, new_shmem_inode, put_inode, try_to_unmap
from node.pagecache.inode import new_inode_record, truncate_inode_pages
from node.pagecache.radix_tree import radix_find, radix_next
from node.pool import Pool
from node.vm.commit import Overcommit, uncommit, vm_enough_memory
from node.vm.mmap import MapFlag, page_align
from node.vm.vma import VmFlag, find_vma
from shared.constants import NIL, PAGE_SHIFT, PAGE_SIZE
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State

SHMMNI: Final = 4096  # segments at most
SHMMAX: Final = (1 << 63) - 1 - (1 << 24)  # bytes of one; Linux: ULONG_MAX - (1 << 24)
IPC_PRIVATE: Final = 0  # the key of a segment that no key finds


class ShmKind(IntEnum):
    """How an object of shared memory is found."""

    NAMELESS = 0
    SYSV = 1
    POSIX = 2
    REMOVED = 3  # a segment that goes with its last area (SHM_DEST)


class ShmFlag(IntEnum):
    """Flags of shmget and shmat, with Linux's values."""

    IPC_CREAT = 0o1000
    IPC_EXCL = 0o2000
    SHM_NORESERVE = 0o10000
    SHM_RDONLY = 0o10000
    SHM_RND = 0o20000
    SHM_REMAP = 0o40000
    SHM_EXEC = 0o100000


@kernel
def _find(state: "State", kind: int, key: int) -> int:
    """Return the object of this kind and key, or NIL."""
    for index in range(1, state.pool[Pool.INODE].mark):
        inode = state.inode[index]
        if inode.refcount > 0 and inode.shm_kind == kind and inode.shm_key == key:
            return index
    return NIL


@kernel
def _is_segment(state: "State", segment: int) -> int:
    if segment <= 0 or segment >= state.pool[Pool.INODE].mark or state.inode[segment].refcount <= 0:
        return 0
    kind = state.inode[segment].shm_kind
    return 1 if kind == ShmKind.SYSV or kind == ShmKind.REMOVED else 0  # noqa: PLR1714 (a kernel has no tuples)


@kernel
def _nr_segments(state: "State") -> int:
    nr_segments = 0
    for index in range(1, state.pool[Pool.INODE].mark):
        nr_segments += _is_segment(state, index)
    return nr_segments


# --- System V -------------------------------------------------------------------------------------------


@kernel
def _new_segment(state: "State", key: int, size: int, flags: int) -> int:
    if size < 1 or size > SHMMAX:
        return Errno.EINVAL
    if _nr_segments(state) >= SHMMNI:
        return Errno.ENOSPC
    never = state.knob[Knob.OVERCOMMIT_MEMORY] == Overcommit.NEVER
    is_accounted = 1 if never or not flags & ShmFlag.SHM_NORESERVE else 0
    segment = new_shmem_inode(state, page_align(size) >> PAGE_SHIFT, is_accounted)
    if segment == NIL:
        return Errno.ENOMEM
    inode = state.inode[segment]
    inode.shm_kind = ShmKind.SYSV
    inode.shm_key = key
    inode.shm_bytes = size
    inode.keeps_areas_apart = 1
    return segment


@entry
def shmget(state: "State", key: int, size: int, flags: int) -> int:
    """Return the segment of a key, made if ``flags`` ask for it; or a negative Errno."""
    found = NIL if key == IPC_PRIVATE else _find(state, ShmKind.SYSV, key)
    if found == NIL:
        if key != IPC_PRIVATE and not flags & ShmFlag.IPC_CREAT:
            return Errno.ENOENT
        return _new_segment(state, key, size, flags)
    both = ShmFlag.IPC_CREAT | ShmFlag.IPC_EXCL
    if flags & both == both:
        return Errno.EEXIST
    return found if size <= state.inode[found].shm_bytes else Errno.EINVAL


@kernel
def _attach_address(state: "State", mm_index: int, vaddr: int, flags: int) -> int:
    """Return where a segment may be attached, 0: anywhere; or Errno.EINVAL. Request.A1 has its bytes."""
    if vaddr == 0:
        return Errno.EINVAL if flags & ShmFlag.SHM_REMAP else 0
    if vaddr & (PAGE_SIZE - 1):
        if not flags & ShmFlag.SHM_RND:
            return Errno.EINVAL
        vaddr &= -PAGE_SIZE
        if vaddr == 0 and flags & ShmFlag.SHM_REMAP:
            return Errno.EINVAL
    if vaddr and not flags & ShmFlag.SHM_REMAP:
        above = find_vma(state, mm_index, vaddr)
        if above != NIL and state.vma[above].start < vaddr + state.request[Request.A1]:
            return Errno.EINVAL
    return vaddr


@entry
def shmat(state: "State", mm_index: int, segment: int, vaddr: int, flags: int) -> int:
    """Attach a segment, at ``vaddr`` or, 0, anywhere; return the address, or a negative Errno."""
    if not _is_segment(state, segment):
        return Errno.EINVAL
    state.request[Request.A1] = state.inode[segment].nr_pages << PAGE_SHIFT
    start = _attach_address(state, mm_index, vaddr, flags)
    if start < 0:
        return start
    rights: int = VmFlag.READ
    if not flags & ShmFlag.SHM_RDONLY:
        rights |= VmFlag.WRITE
    if flags & ShmFlag.SHM_EXEC:
        rights |= VmFlag.EXEC
    state.request[Request.A0] = start
    state.request[Request.A2] = rights
    state.request[Request.A3] = MapFlag.SHARED | (MapFlag.FIXED if start else 0)
    state.request[Request.A4] = segment
    state.request[Request.A5] = 0
    state.request[Request.A6] = 0
    return do_mmap(state, mm_index)


@entry
def shmdt(state: "State", mm_index: int, vaddr: int) -> int:
    """Detach the segment attached at ``vaddr``, with all parts that are left of it; return 0, or Errno.EINVAL."""
    index = find_vma(state, mm_index, vaddr)
    # Its first page may be unmapped already: what counts is where it would be.
    while index != NIL and not _lies_as_attached(state, index, vaddr):
        index = state.vma[index].next
    if index == NIL or vaddr & (PAGE_SIZE - 1):
        return Errno.EINVAL
    segment = state.vma[index].inode
    end = vaddr + (state.inode[segment].nr_pages << PAGE_SHIFT)
    while index != NIL and state.vma[index].end <= end:
        following = state.vma[index].next
        if state.vma[index].inode == segment and _lies_as_attached(state, index, vaddr):
            munmap(state, mm_index, state.vma[index].start, state.vma[index].end)
        index = following
    return 0


@kernel
def _lies_as_attached(state: "State", index: int, vaddr: int) -> int:
    """Return whether an area is part of a segment that was attached at ``vaddr``."""
    vma = state.vma[index]
    if not vma.inode or not state.inode[vma.inode].keeps_areas_apart:
        return 0
    return 1 if vma.start - vaddr == vma.pgoff << PAGE_SHIFT else 0


@entry
def shm_remove(state: "State", segment: int) -> int:
    """Remove a segment's key (IPC_RMID): it goes now, or with the last area; return 0, or Errno.EINVAL."""
    if not _is_segment(state, segment):
        return Errno.EINVAL
    inode = state.inode[segment]
    if inode.shm_kind == ShmKind.SYSV:
        inode.shm_kind = ShmKind.REMOVED
        inode.shm_key = IPC_PRIVATE
        put_inode(state, segment)
    return 0


@entry
def shm_stat(state: "State", segment: int) -> int:
    """Fill Request.R0..R2 with a segment's bytes, areas that attach it, and pages in memory; return 0, or Errno.EINVAL.

    Linux shows the last one in /proc/sysvipc/shm.
    """
    if not _is_segment(state, segment):
        return Errno.EINVAL
    inode = state.inode[segment]
    state.request[Request.R0] = inode.shm_bytes
    state.request[Request.R1] = inode.refcount - (1 if inode.shm_kind == ShmKind.SYSV else 0)
    state.request[Request.R2] = inode.nr_cached
    return 0


# --- POSIX ----------------------------------------------------------------------------------------------


@entry
def shm_open(state: "State", name: int, flags: int) -> int:
    """Return the object of a name, which is a number here, made empty if ``flags`` ask for it; or a negative Errno.

    ``flags`` are IPC_CREAT and IPC_EXCL, for O_CREAT and O_EXCL. Only the name and areas hold the object.
    """
    found = _find(state, ShmKind.POSIX, name)
    if found != NIL:
        both = ShmFlag.IPC_CREAT | ShmFlag.IPC_EXCL
        return Errno.EEXIST if flags & both == both else found
    if not flags & ShmFlag.IPC_CREAT:
        return Errno.ENOENT
    index = new_inode_record(state, InodeKind.SHMEM, 0)
    if index == NIL:
        return Errno.ENOSPC
    state.inode[index].shm_kind = ShmKind.POSIX
    state.inode[index].shm_key = name
    return index


@entry
def shm_truncate(state: "State", inode: int, size: int) -> int:
    """Give an object another size; pages behind it go, from all page tables too; return 0, or a negative Errno."""
    record = state.inode[inode]
    if size < 0 or record.kind != InodeKind.SHMEM:
        return Errno.EINVAL
    nr_pages = page_align(size) >> PAGE_SHIFT
    nr_more = nr_pages - record.nr_committed
    if nr_more > 0 and vm_enough_memory(state, state.current[Current.MM], nr_more) == NIL:
        return Errno.ENOMEM
    if nr_more < 0:
        uncommit(state, -nr_more)
    record.nr_committed = nr_pages
    index = radix_next(state, inode, nr_pages)
    while index != NIL:
        try_to_unmap(state, radix_find(state, inode, index), 0)
        index = radix_next(state, inode, index + 1)
    truncate_inode_pages(state, inode, nr_pages)
    record.nr_pages = nr_pages
    record.shm_bytes = size
    return 0


@entry
def shm_unlink(state: "State", name: int) -> int:
    """Remove a name; the object goes now, or with the last area that maps it; return 0, or Errno.ENOENT."""
    found = _find(state, ShmKind.POSIX, name)
    if found == NIL:
        return Errno.ENOENT
    state.inode[found].shm_kind = ShmKind.NAMELESS
    put_inode(state, found)
    return 0
