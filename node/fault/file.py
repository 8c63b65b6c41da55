"""Pages of files and of shared memory: read, copied before they are written, or written in place.

    read            cached pages of the 64 KiB around that no entry maps yet are mapped with it (fault-around)
    write, private  a copy, which is anonymous memory from then on
    write, shared   the file hears of it (page_mkwrite); the entry may be written

Linux: mm/memory.c (do_fault, do_read_fault, do_fault_around, do_cow_fault, do_shared_fault, do_set_pte), mm/filemap.c
(filemap_map_pages).
"""

from typing import TYPE_CHECKING

from node.content import copy_content
from node.counters import Current, Knob
from node.fault.anon import new_anon_page
from node.fault.entries import mapped_bits, set_user_pte, write_bits
from node.fault.kinds import Access, VmFault
from node.fault.outcome import FaultOutcome
from node.hw.cost import Cost
from node.hw.pte import Pte, make_pte, pte_pfn
from node.inode_kind import InodeKind
from node.pagecache.dirty import set_page_dirty
from node.pagecache.inode import page_of_file
from node.pagecache.radix_tree import radix_find
from node.vm.mlock_page import mlock_vma_page
from node.vm.page_tables import pte_alloc
from node.vm.put_page import put_page
from node.vm.rmap import count_mapped, linear_page_index, page_add_rmap, page_remove_rmap
from node.vm.rss import note_late_page
from node.vm.vma import VmFlag
from shared.constants import ENTRIES_PER_TABLE, NIL, PAGE_SHIFT
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def _read_bits(state: "State", vma_index: int) -> int:
    """Return the bits of an entry that a read makes: of shared memory, which hears of no write, it may be written."""
    vma = state.vma[vma_index]
    bits = mapped_bits(state, vma_index)
    writable = vma.vm_flags & VmFlag.SHARED and vma.vm_flags & VmFlag.WRITE
    if writable and state.inode[vma.inode].kind == InodeKind.SHMEM:
        bits |= Pte.WRITE
    return bits


@kernel
def _map_page(state: "State", vma_index: int, position: int, vaddr: int, pte: int) -> None:
    """Write an entry that maps a page of the file."""
    mm_index = state.vma[vma_index].mm
    pfn = pte_pfn(pte)
    state.page[pfn].refcount += 1
    page_add_rmap(state, pfn)
    mlock_vma_page(state, pfn, vma_index)
    count_mapped(state, mm_index, pfn, 1)
    note_late_page(state, mm_index)
    set_user_pte(state, mm_index, position, vaddr, pte)


@kernel
def _cached_page(state: "State", inode: int, index: int) -> int:
    """Return the frame of a page that is in the cache, or 0; files are, whole (node/pagecache/inode.py)."""
    if state.inode[inode].kind == InodeKind.SHMEM:
        return radix_find(state, inode, index)
    pfn = page_of_file(state, inode, index)
    return 0 if pfn == NIL else pfn


@kernel
def _fault_around(state: "State", vma_index: int, position: int, vaddr: int) -> int:
    """Map the cached pages around a fault that no entry maps; return whether the page asked for is among them."""
    vma = state.vma[vma_index]
    span = state.knob[Knob.FAULT_AROUND_PAGES]
    first = max(vaddr & -(span << PAGE_SHIFT), vma.start)
    # To the end of the window, of the table, of the area, or of the file.
    table_end = ((first >> PAGE_SHIFT) // ENTRIES_PER_TABLE + 1) * ENTRIES_PER_TABLE << PAGE_SHIFT
    end = min(first + (span << PAGE_SHIFT), table_end, vma.end)
    served = 0
    bits = _read_bits(state, vma_index)
    nr_pages = state.inode[vma.inode].nr_pages
    for at in range(first, end, 1 << PAGE_SHIFT):
        index = linear_page_index(state, vma_index, at)
        if index >= nr_pages:
            break
        place = position + ((at - vaddr) >> PAGE_SHIFT)
        pfn = _cached_page(state, vma.inode, index) if state.pt_word[place] == 0 else 0
        if pfn != 0:
            _map_page(state, vma_index, place, at, make_pte(pfn, bits))
            if at == vaddr:
                served = 1
    return served


@kernel
def _read_fault(state: "State", vma_index: int, position: int, vaddr: int) -> int:
    if state.knob[Knob.FAULT_AROUND_PAGES] > 1 and _fault_around(state, vma_index, position, vaddr):
        state.fault_outcome[FaultOutcome.FILE_AROUND] += 1
        return VmFault.DONE
    pfn = page_of_file(state, state.vma[vma_index].inode, linear_page_index(state, vma_index, vaddr))
    if pfn == NIL:
        return VmFault.OOM
    _map_page(state, vma_index, position, vaddr, make_pte(pfn, _read_bits(state, vma_index)))
    state.fault_outcome[FaultOutcome.FILE_READ] += 1
    return VmFault.DONE


@kernel
def _cow_fault(state: "State", vma_index: int, position: int, vaddr: int) -> int:
    new = new_anon_page(state, vma_index, vaddr)
    if new == NIL:
        return VmFault.OOM
    source = page_of_file(state, state.vma[vma_index].inode, linear_page_index(state, vma_index, vaddr))
    if source == NIL:
        page_remove_rmap(state, new)
        put_page(state, new)
        return VmFault.OOM
    copy_content(state, new, source)
    state.current[Current.CLOCK_PS] += state.cost[Cost.PAGE_COPY]
    mm_index = state.vma[vma_index].mm
    state.mm[mm_index].nr_anon += 1
    note_late_page(state, mm_index)
    bits = mapped_bits(state, vma_index) | write_bits(state, vma_index)
    set_user_pte(state, mm_index, position, vaddr, make_pte(new, bits))
    state.fault_outcome[FaultOutcome.FILE_COPIED] += 1
    return VmFault.DONE


@kernel
def _shared_fault(state: "State", vma_index: int, position: int, vaddr: int) -> int:
    pfn = page_of_file(state, state.vma[vma_index].inode, linear_page_index(state, vma_index, vaddr))
    if pfn == NIL:
        return VmFault.OOM
    set_page_dirty(state, pfn)
    bits = mapped_bits(state, vma_index) | write_bits(state, vma_index)
    _map_page(state, vma_index, position, vaddr, make_pte(pfn, bits))
    state.fault_outcome[FaultOutcome.FILE_WRITTEN] += 1
    return VmFault.DONE


@kernel
def do_file_fault(state: "State", vma_index: int, position: int, vaddr: int, access: int) -> int:
    """Serve a fault on an empty entry of an area that maps a file; return a VmFault (do_fault).

    ``position`` is NIL if the table is still to be made. Behind the file's end there is nothing to map: SIGBUS.
    """
    vma = state.vma[vma_index]
    if linear_page_index(state, vma_index, vaddr) >= state.inode[vma.inode].nr_pages:
        return VmFault.SIGBUS
    if position == NIL:
        position = pte_alloc(state, vma.mm, vaddr)
        if position == NIL:
            return VmFault.OOM
    if not access & Access.WRITE:
        return _read_fault(state, vma_index, position, vaddr)
    if vma.vm_flags & VmFlag.SHARED:
        return _shared_fault(state, vma_index, position, vaddr)
    return _cow_fault(state, vma_index, position, vaddr)
