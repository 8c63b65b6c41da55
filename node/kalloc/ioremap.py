"""Devices' registers and memory, mapped where the kernel can use them, and not cached.

    physical addresses   | RAM | hole, with devices | RAM ... | more devices ...
                                   0xfed00000
                                       |
    vmalloc space        | .. | page | guard | ..     entries with PCD: what is read and written goes to the device

A cache would answer for the device with what it said last time. So each entry chooses a memory type through the PAT:
UC- is plain ioremap's, WC (writes are gathered) is for a screen's memory. RAM is refused, whoever has it: it would have
two types at once. Areas are aligned to their size, as devices' are.

Linux: arch/x86/mm/ioremap.c (__ioremap_caller), mm/vmalloc.c (__get_vm_area_node).
# Differs from Linux: nothing keeps track of memory types (memtype_reserve), so two mappings of one device may differ;
what is read there has no content; a request has at most 16 GiB, and a guest machine has no devices to map.
"""

from typing import TYPE_CHECKING, Final

from node.counters import Knob
from node.hw.paging import MIN_LEVELS_64
from node.kalloc.vmalloc import remove_area, unmap_area
from node.kalloc.vmap_area import VmapFlag, VmapStat
from node.kalloc.vmap_pages import KernelProt, kernel_prot_bits, map_kernel_page, memory_type_bits
from node.kalloc.vmap_space import GUARD_BYTES, VmapRange, get_area
from node.phys.zone import PAGEBLOCK_ORDER
from shared.constants import NIL, PAGE_OFFSET_MASK, PAGE_SHIFT, PAGE_SIZE
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State

# IOREMAP_MAX_ORDER of arch/x86/include/asm/page_types.h: PUD_SHIFT on 64-bit machines, PMD_SHIFT on others.
IOREMAP_MAX_SHIFT_64: Final = 30
IOREMAP_MAX_SHIFT_32: Final = 22
MAX_DEVICE_BYTES: Final = 1 << 34  # 16 GiB, as much as a large graphics card's memory


@kernel
def _ioremap_align(state: "State", size: int) -> int:
    """Return the alignment of an area for a device: its size, rounded up to a power of two, within limits."""
    largest = IOREMAP_MAX_SHIFT_64 if state.knob[Knob.NR_LEVELS] >= MIN_LEVELS_64 else IOREMAP_MAX_SHIFT_32
    shift = PAGE_SHIFT
    while shift < largest and (1 << shift) < size:
        shift += 1
    return 1 << shift


@kernel
def _is_device_memory(state: "State", paddr: int, size: int) -> int:
    """Return whether no RAM lies in [paddr, paddr + size), and the processor has such addresses.

    A hole in the RAM below 4 GiB is where most devices are. A guest has none: its host gives it no device.
    """
    nr_bits = state.knob[Knob.PHYSICAL_BITS]
    if paddr >> nr_bits or not 0 < size <= MAX_DEVICE_BYTES or state.knob[Knob.IS_GUEST]:
        return 0
    end = paddr + size
    if end > 1 << nr_bits:
        return 0
    last_block = min((end - 1) >> (PAGE_SHIFT + PAGEBLOCK_ORDER), len(state.pageblock) - 1)
    for block in range(paddr >> (PAGE_SHIFT + PAGEBLOCK_ORDER), last_block + 1):
        zone = state.pageblock[block].zone
        if zone != NIL and max(paddr >> PAGE_SHIFT, block << PAGEBLOCK_ORDER) < state.zone[zone].end_pfn:
            return 0
    return 1


@entry
def ioremap(state: "State", paddr: int, size: int, kind: int, caller: int) -> int:
    """Map the registers or the memory of a device; return the address that stands for ``paddr``, or NIL.

    ``kind`` is a MemoryType: UC_MINUS is Linux's plain ioremap, UC ioremap_uc, WC ioremap_wc. Memory of the machine
    itself is refused, as are addresses that the processor does not have.
    """
    type_bits = memory_type_bits(kind)
    if type_bits == NIL or not _is_device_memory(state, paddr, size):
        state.vmap_stat[VmapStat.BAD_REQUEST] += 1
        return NIL
    first = paddr & -PAGE_SIZE
    nr_bytes = ((paddr + size + PAGE_OFFSET_MASK) & -PAGE_SIZE) - first
    index = get_area(state, nr_bytes + GUARD_BYTES, _ioremap_align(state, nr_bytes), VmapRange.VMALLOC)
    if index == NIL:
        return NIL
    area = state.vmap_area[index]
    area.caller = caller
    area.vmap_flags = VmapFlag.IOREMAP
    area.paddr = first
    bits = kernel_prot_bits(state, KernelProt.READ_WRITE) | type_bits
    pfn = first >> PAGE_SHIFT
    for vaddr in range(area.start, area.end - GUARD_BYTES, PAGE_SIZE):
        if map_kernel_page(state, vaddr, pfn, bits) == NIL:
            state.vmap_stat[VmapStat.NO_MEMORY] += 1
            unmap_area(state, index)
            return NIL
        pfn += 1
    return area.start + (paddr & PAGE_OFFSET_MASK)


@entry
def iounmap(state: "State", vaddr: int) -> int:
    """Unmap what ``ioremap`` mapped; return 0, or NOT_AN_AREA."""
    return remove_area(state, vaddr & -PAGE_SIZE, VmapFlag.IOREMAP)
