r"""Memory that lies together in the kernel's address space, and anywhere in the machine's.

    vmalloc(12 KiB)   addresses   |  page 0  |  page 1  |  page 2  | guard |      one area (node/kalloc/vmap_space.py)
                                      |           \         |
                      frames        9731          402     6116                    one by one, from any zone

Frames come one at a time, so it works when no block of frames is left that kmalloc could give; the price is a page
table to fill, and a TLB entry for each page instead of one for 2 MiB of the direct map. ``vmap`` does the same with
frames that its caller has; node/kalloc/ioremap.py with addresses of devices.

What is freed is unmapped at once, and its frames go back; its addresses are flushed later, with others'.

Linux: mm/vmalloc.c (__vmalloc_node_range, __vmalloc_area_node, vmap, __vunmap), arch/x86/kernel/module.c.
# Differs from Linux: frames are asked for one by one, never in bulk; the array that names an area's frames takes no
memory (its page table names them), so "vpages" is never printed; vmap takes a linked list of frames, not an array;
on a machine without paging there is no vmalloc.
"""

from typing import TYPE_CHECKING, Final

from node.counters import Current, VmStat
from node.hw.cost import Cost
from node.joints import alloc_frames, free_frames
from node.kalloc.vmap_area import VmapFlag, VmapStat, find_vmap_area
from node.kalloc.vmap_pages import (
    KernelProt,
    kernel_prot_bits,
    map_kernel_page,
    unmap_kernel_page,
)
from node.kalloc.vmap_space import GUARD_BYTES, VmapRange, get_area, purge_lazy_areas, put_area
from node.phys.page import PageFlag
from shared.constants import NIL, PAGE_OFFSET_MASK, PAGE_SHIFT, PAGE_SIZE
from shared.gfp_flags import GFP_KERNEL, Gfp
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State

NOT_AN_AREA: Final = 1  # vfree, vunmap and iounmap return it, with nothing done


@kernel
def _total_pages(state: "State") -> int:
    """Return how many frames the machine has that can be allocated (totalram_pages)."""
    total = 0
    for zone in range(len(state.zone)):
        total += state.zone[zone].managed
    return total


@kernel
def _pages_of(state: "State", size: int) -> int:
    """Return how many pages ``size`` bytes take; 0 for what Linux refuses: nothing, or more than all memory."""
    if size <= 0 or size > _total_pages(state) << PAGE_SHIFT:
        state.vmap_stat[VmapStat.BAD_REQUEST] += 1
        return 0
    return (size + PAGE_OFFSET_MASK) >> PAGE_SHIFT


@kernel
def unmap_area(state: "State", index: int) -> None:
    """Clear an area's entries, free the frames that are its own, and let it wait for its flush."""
    area = state.vmap_area[index]
    owns_frames = area.nr_pages != 0
    for vaddr in range(area.start, area.end - GUARD_BYTES, PAGE_SIZE):
        pfn = unmap_kernel_page(state, vaddr)
        if owns_frames and pfn != NIL:
            state.vm_stat[VmStat.NR_VMALLOC] -= 1
            free_frames(state, pfn, 0)
    needs_flush = area.vmap_flags & VmapFlag.FLUSH_RESET_PERMS
    put_area(state, index)
    if needs_flush:
        purge_lazy_areas(state)


@kernel
def fill_area(state: "State", index: int, gfp: int, prot: int) -> int:
    """Give every page of an area a frame of its own, and map it; return 0, or NIL with the area gone again."""
    area = state.vmap_area[index]
    if not gfp & (Gfp.DMA | Gfp.DMA32):
        gfp |= Gfp.HIGHMEM
    gfp |= Gfp.NOWARN
    bits = kernel_prot_bits(state, prot)
    for vaddr in range(area.start, area.end - GUARD_BYTES, PAGE_SIZE):
        pfn = alloc_frames(state, 0, gfp)
        if pfn != NIL and map_kernel_page(state, vaddr, pfn, bits) == NIL:
            free_frames(state, pfn, 0)
            pfn = NIL
        if pfn == NIL:
            state.vmap_stat[VmapStat.NO_MEMORY] += 1
            unmap_area(state, index)
            return NIL
        state.page[pfn].page_flags |= PageFlag.VMALLOC | PageFlag.KERNEL
        area.nr_pages += 1
        state.vm_stat[VmStat.NR_VMALLOC] += 1
        if gfp & Gfp.ZERO:
            state.current[Current.CLOCK_PS] += state.cost[Cost.PAGE_ZERO]
    return 0


@kernel
def vmalloc_in_range(state: "State", size: int, gfp: int, caller: int, which: int) -> int:
    """Return the address of ``size`` bytes in a VmapRange (__vmalloc_node_range), or NIL.

    Modules get text: pages that may be executed and not written, flushed as soon as they are freed.
    """
    nr_pages = _pages_of(state, size)
    if nr_pages == 0:
        return NIL
    index = get_area(state, (nr_pages << PAGE_SHIFT) + GUARD_BYTES, PAGE_SIZE, which)
    if index == NIL:
        return NIL
    area = state.vmap_area[index]
    area.caller = caller
    area.vmap_flags = VmapFlag.ALLOC
    prot = KernelProt.READ_WRITE
    if which == VmapRange.MODULES:
        area.vmap_flags = VmapFlag.ALLOC | VmapFlag.FLUSH_RESET_PERMS
        prot = KernelProt.READ_EXECUTE
    if fill_area(state, index, gfp, prot) == NIL:
        return NIL
    return area.start


@entry
def vmalloc(state: "State", size: int, gfp: int, caller: int) -> int:
    """Return the kernel address of ``size`` bytes, in whole pages, or NIL; ``caller`` is a VmapCaller.

    With Gfp.ZERO it is vzalloc. Frames come from any zone unless the flags say DMA or DMA32.
    """
    return vmalloc_in_range(state, size, gfp, caller, VmapRange.VMALLOC)


@kernel
def remove_area(state: "State", vaddr: int, vmap_flag: int) -> int:
    """Take away the area that ``vaddr`` lies in; return 0, or NOT_AN_AREA if it is none of that VmapFlag.

    The address must be a page's. An address inside will do, as in Linux.
    """
    index = NIL if vaddr & PAGE_OFFSET_MASK else find_vmap_area(state, vaddr)
    if index == NIL or not state.vmap_area[index].vmap_flags & vmap_flag:
        state.vmap_stat[VmapStat.BAD_FREE] += 1
        return NOT_AN_AREA
    unmap_area(state, index)
    return 0


@entry
def vfree(state: "State", vaddr: int) -> int:
    """Free what ``vmalloc`` gave; return 0, or NOT_AN_AREA (Linux warns, and goes on)."""
    return remove_area(state, vaddr, VmapFlag.ALLOC)


@entry
def vmap(state: "State", first_pfn: int, nr_pages: int, caller: int) -> int:
    """Map frames of the caller's together; return the address, or NIL.

    The frames are on no list of the kernel's: ``page.next`` links them, and the last one's is NIL. They stay the
    caller's. Fewer than ``nr_pages`` is a request that is refused.
    """
    pfn = first_pfn
    nr_linked = 0
    while pfn != NIL and nr_linked < nr_pages:
        nr_linked += 1
        pfn = state.page[pfn].next
    if _pages_of(state, nr_linked << PAGE_SHIFT) == 0:
        return NIL
    if nr_linked != nr_pages:
        state.vmap_stat[VmapStat.BAD_REQUEST] += 1
        return NIL
    index = get_area(state, (nr_pages << PAGE_SHIFT) + GUARD_BYTES, PAGE_SIZE, VmapRange.VMALLOC)
    if index == NIL:
        return NIL
    area = state.vmap_area[index]
    area.caller = caller
    area.vmap_flags = VmapFlag.MAP
    bits = kernel_prot_bits(state, KernelProt.READ_WRITE)
    pfn = first_pfn
    for vaddr in range(area.start, area.end - GUARD_BYTES, PAGE_SIZE):
        if map_kernel_page(state, vaddr, pfn, bits) == NIL:
            state.vmap_stat[VmapStat.NO_MEMORY] += 1
            unmap_area(state, index)
            return NIL
        pfn = state.page[pfn].next
    return area.start


@entry
def vunmap(state: "State", vaddr: int) -> int:
    """Unmap what ``vmap`` mapped; return 0, or NOT_AN_AREA. The frames stay the caller's."""
    return remove_area(state, vaddr, VmapFlag.MAP)


# --- modules --------------------------------------------------------------------------------------------


@entry
def load_module(state: "State", size: int, caller: int) -> int:
    """Return the address of ``size`` bytes of a module's text, in the modules' region, or NIL (module_alloc).

    Near the kernel's text, so that calls reach it by 32-bit offsets.
    # Differs from Linux: all of a module is text; its data, and the time in which its text can be written, are not.
    """
    return vmalloc_in_range(state, size, GFP_KERNEL, caller, VmapRange.MODULES)


@entry
def unload_module(state: "State", vaddr: int) -> int:
    """Free a module's text, and flush it at once (VM_FLUSH_RESET_PERMS); return 0, or NOT_AN_AREA."""
    return remove_area(state, vaddr, VmapFlag.FLUSH_RESET_PERMS)
