"""The kernel pages that every system call, fault and interrupt touches: what a crossing of the border costs the TLBs.

    entry text        fetched    the code between user mode and the kernel proper
    entry stack       written    of this CPU, in the cpu_entry_area: registers are pushed there first
    kernel text       fetched    the handler
    per-CPU memory    written    current task, its stack: through the direct map

These are one page each, the least that any entry touches; what a handler does beyond that is not modelled. They
are accessed through the kernel's own page table, so they take entries of the TLBs, large ones where the kernel is
mapped so, and without PCIDs isolation makes every entry walk for them again.

Linux: arch/x86/entry/entry_64.S (entry_SYSCALL_64, error_entry), arch/x86/include/asm/cpu_entry_area.h.
# Differs from Linux: a task's stack is taken from the direct map, not from vmalloc space.
"""

from typing import TYPE_CHECKING, Final

import numpy as np

from node.counters import Knob
from node.hw.paging import AccessKind, PagingMode
from node.kmap.cpu_entry_area import Part, entry_area_layout, entry_area_page
from node.kmap.kernel_tables import KernelLayout
from node.kmap.memory_map import START_KERNEL_MAP, RegionName, signed
from node.kmap.physical_map import Holder
from shared.constants import PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from node.state import State

MAX_ENTRY_PAGES: Final = 4

ENTRY_PAGE = np.dtype(
    [
        ("vaddr", np.int64),
        ("key", np.int64),  # of its entry in the first level, without the tag; 0: not known
        ("tag_mask", np.int64),  # which bits of the tag its key has: none if it is global
        ("place", np.int32),  # in state.tlb, where the first level had it last
        ("array", np.int16),  # TlbArray of that place
        ("kind", np.int16),  # AccessKind
    ],
    align=True,
)


def entry_page_list(layout: KernelLayout, cpu: int) -> list[tuple[int, AccessKind]]:
    """Return address (unsigned) and access of each page that an entry on ``cpu`` touches."""
    if layout.mode == PagingMode.NONE:
        return []
    direct = layout.region(RegionName.DIRECT_MAP).start
    text_base = direct if layout.is_32bit else START_KERNEL_MAP
    text = layout.frames_of(Holder.TEXT).first
    per_cpu = direct + (layout.per_cpu_pfn(cpu) << PAGE_SHIFT)
    stack = per_cpu  # the task's own, where a kernel is older than cpu_entry_area
    if entry_area_layout(layout.era, layout.mode).pages:
        area = layout.region(RegionName.CPU_ENTRY_AREA).start
        stack = area + entry_area_page(layout.era, layout.mode, cpu, Part.ENTRY_STACK) * PAGE_SIZE
    return [
        (text_base + (layout.entry_text.first << PAGE_SHIFT), AccessKind.EXECUTE),
        (stack, AccessKind.WRITE),
        (text_base + (text << PAGE_SHIFT), AccessKind.EXECUTE),
        (per_cpu, AccessKind.WRITE),
    ]


def setup_entry_pages(state: "State", layout: KernelLayout) -> None:
    """Write the list of every CPU into ``state.entry_page``, and its length into Knob.ENTRY_PAGES."""
    for cpu in range(layout.cpus):
        pages = entry_page_list(layout, cpu)
        state.knob[Knob.ENTRY_PAGES] = len(pages)
        for number, (address, kind) in enumerate(pages):
            record = state.entry_page[cpu * len(pages) + number]
            record.vaddr = signed(address)
            record.kind = kind
