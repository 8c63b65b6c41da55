"""The master kernel page table (init_mm, swapper_pg_dir), as it is when the machine has booted.

    PGD --+-- 273  direct map     PUD ---- 1 GiB pages; PMD below the first GiB and in the last: 2 MiB pages;
          |                                PTE below 2 MiB and at the end: 4 KiB pages
          +-- 402..465  vmalloc   PUD      64 empty tables (6.1), or none yet (lecture)
          +-- 468  vmemmap        PUD ---- PMD: 2 MiB pages of frame descriptors
          +-- 508  cpu_entry_area PUD ---- PMD ---- PTE: per-CPU pages
          +-- 511  text, fixmap   PUD -+-- PMD (level2_kernel_pgt): 2 MiB pages of the image
                                       +-- PMD (level2_fixmap_pgt) ---- 2 PTE (level1_fixmap_pgt), empty

It is made once, of real entries in real frames, and every process's top-level table has its kernel half
(node/kmap/pti.py). Which page sizes the direct map has follows from what init_memory_mapping does with memory that
begins with a hole at 640 KiB: a block is mapped by one large page if all of it is memory, so the first 2 MiB
and the end get 4 KiB pages, the first GiB 2 MiB pages, and everything between the largest that the processor has.

    rights          text    rodata   data, direct map, descriptors
    write                               yes
    execute         yes

The direct map's alias of text and read-only data is read-only too. Entries are global, so that they survive
changes of CR3, unless KPTI is on: then only cpu_entry_area and the entry text are, which are the same in both
copies. Entries that lead to tables allow everything (_PAGE_TABLE); the last entry decides.

A 32-bit kernel's image is in its direct map (lowmem), which begins with 4 KiB pages up to 4 MiB and goes on with
4 MiB ones; without PAE there is no execute-disable bit.

Source: arch/x86/mm/init.c (probe_page_size_mask, split_mem_range, adjust_range_page_size_mask), init_64.c
(phys_pud_init, vmemmap_populate_hugepages, preallocate_vmalloc_pages, mark_rodata_ro, cleanup_highmap),
init_32.c, pti.c (pti_clone_user_shared, pti_clone_entry_text), arch/x86/kernel/head_64.S.
# Differs from Linux: the fixmap is empty, since the machine has no devices with memory of their own; nothing
# splits the direct map's large pages later.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, Final

from node.counters import Knob
from node.hw.paging import PAGING_MODES, PagingMode
from node.hw.pte import NX, Pte
from node.kmap.cpu_entry_area import NR_IDT_PAGES, Part, Protection, entry_area_layout
from node.kmap.memory_map import (
    DEFAULT_PAGE_OFFSET,
    ERAS,
    NR_CPUS_32BIT,
    START_KERNEL_MAP,
    VSYSCALL,
    Region,
    RegionName,
    find_region,
    signed,
)
from node.kmap.physical_map import (
    FrameRange,
    Holder,
    descriptor_pages,
    frames_of,
    lowmem_pages,
    physical_map,
)
from node.kmap.ram_map import RamMap, ram_map
from node.kmap.table_builder import KERNEL_TABLE, TableBuilder, Words
from node.phys.page import PageFlag
from shared.constants import CACHE_LINE_BYTES, HUGE_PAGE_SIZE, NIL, PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from node.state import State

PAGE_RO: Final = Pte.PRESENT | Pte.ACCESSED | Pte.DIRTY  # and NX: PAGE_KERNEL_RO; without: PAGE_KERNEL_ROX
PAGE_RW: Final = PAGE_RO | Pte.WRITE
P4D_SHIFT: Final = 39  # of the level that KPTI shares cpu_entry_area at, whatever the number of levels
PMD_PAGES: Final = HUGE_PAGE_SIZE // PAGE_SIZE
NR_FIXMAP_TABLES: Final = 2  # FIXMAP_PMD_NUM


@dataclass(frozen=True)
class KernelLayout:
    """What decides how the kernel's page table looks.

    ``frames`` (first, behind) are the reserved frames that tables and per-CPU pages may take; None: those of the
    physical map that are the kernel's boot allocations. ``page_offset`` is for 32-bit machines.
    """

    nr_frames: int
    mode: PagingMode = PagingMode.LEVEL_4
    era: str = "6.1"
    cpus: int = 1
    pti: bool = True
    gigantic: bool = True  # the processor has 1 GiB pages
    page_offset: int = DEFAULT_PAGE_OFFSET
    frames: tuple[int, int] | None = None
    nx: bool = True  # the processor can forbid fetches
    ram: RamMap | None = None  # None: one node, without holes

    @cached_property
    def physical(self) -> tuple[FrameRange, ...]:
        """The physical map."""
        return physical_map(self.era, self.mode, self.nr_frames, self.page_offset, self.ram)

    @property
    def boot_frames(self) -> tuple[int, int]:
        """First frame that tables may take, and the first behind them."""
        boot = self.frames_of(Holder.BOOT)
        return self.frames or (boot.first, boot.behind - self.cpus)

    def per_cpu_pfn(self, cpu: int) -> int:
        """Return a frame of per-CPU memory that is no page of cpu_entry_area: current task, its stack."""
        return self.frames_of(Holder.BOOT).behind - 1 - cpu

    @property
    def is_32bit(self) -> bool:
        """Return whether this is 32-bit paging, without PAE."""
        return self.mode == PagingMode.BITS_32

    @property
    def nx_bit(self) -> int:
        """What an entry that forbids fetches has set."""
        return NX if self.nx and not self.is_32bit else 0

    @property
    def kernel_pgd_index(self) -> int:
        """First entry of a top-level table that maps the kernel (PGD_KERNEL_START)."""
        if self.mode == PagingMode.NONE:
            return 0
        mode = PAGING_MODES[self.mode]
        if self.is_32bit:
            return self.page_offset >> mode.levels[0].shift
        return 1 << (mode.table_shift - 1)

    def region(self, name: RegionName) -> Region:
        """Return a region of this kernel's memory map."""
        return find_region(name, self.era, self.mode, self.page_offset, self.nr_frames * PAGE_SIZE)

    def frames_of(self, holder: Holder) -> FrameRange:
        """Return a range of this machine's physical map."""
        return frames_of(holder, self.physical)

    @property
    def entry_text(self) -> FrameRange:
        """The text that enters and leaves the kernel: the last 2 MiB of text, being aligned so for KPTI."""
        text = self.frames_of(Holder.TEXT)
        return FrameRange(Holder.TEXT, text.behind - PMD_PAGES, text.behind)


@dataclass(frozen=True)
class KernelTables:
    """The tables: words of each table frame; where they begin; the first frame that is still unused."""

    tables: dict[int, Words]
    swapper_pgd: int
    next_pfn: int


def _check(layout: KernelLayout) -> None:
    mode = PAGING_MODES[layout.mode].name
    if layout.pti and layout.mode not in (PagingMode.LEVEL_4, PagingMode.LEVEL_5):
        raise ValueError(f"pti: on needs 4level or 5level paging, not {mode}")
    if layout.is_32bit and layout.cpus > NR_CPUS_32BIT:
        raise ValueError(f"cpus: {layout.cpus} is above the {NR_CPUS_32BIT} of a 32-bit kernel")
    if layout.mode in (PagingMode.LEVEL_4, PagingMode.LEVEL_5):
        maximum = layout.region(RegionName.DIRECT_MAP).nr_bytes // PAGE_SIZE
        if layout.nr_frames > maximum:
            raise ValueError(
                f"memory: {layout.nr_frames} frames are above the {maximum} that {mode} paging maps directly"
            )


# --- what is mapped -----------------------------------------------------------------------------------------


class _KernelMap:
    """Fills the master table, region by region."""

    def __init__(self, layout: KernelLayout) -> None:
        self.layout = layout
        self.build = TableBuilder(layout.mode, layout.boot_frames, gigantic=layout.gigantic)
        self.swapper = self.build.new_table(2, align=2) if layout.pti else self.build.new_table()
        self.shared = 0 if layout.pti else Pte.GLOBAL  # __default_kernel_pte_mask clears it
        self.ro = PAGE_RO | self.shared | layout.nx_bit
        self.rw = PAGE_RW | self.shared | layout.nx_bit
        self.rx = PAGE_RO | self.shared

    def direct_map(self) -> None:
        """Map all memory, or a 32-bit machine's lowmem, at page_offset."""
        layout = self.layout
        base = layout.region(RegionName.DIRECT_MAP).start
        behind = lowmem_pages(layout.era, layout.mode, layout.nr_frames, layout.page_offset)
        # The hole at 640 KiB, and the memory types that firmware sets up by parts there, ask for small pages.
        levels = self.build.levels
        small_below = 1 << (levels[self.build.leaf_levels[-2]].shift - PAGE_SHIFT)
        text = layout.frames_of(Holder.TEXT)
        rodata = layout.frames_of(Holder.RODATA)
        holes = layout.ram.holes if layout.ram else ()
        borders = sorted({0, small_below, text.first, rodata.behind, behind, *chain.from_iterable(holes)})
        for first, border in pairwise(borders):
            if (first, border) in holes:
                continue
            bits = self.rw
            if text.first <= first < rodata.behind:
                # A 32-bit kernel's text is executed here; without PAE nothing forbids that.
                bits = self.ro
            largest = 1 if first < small_below else None
            self.build.map_pages(self.swapper, base + first * PAGE_SIZE, (first, border), bits, largest)

    def kernel_image(self) -> None:
        """Map the image where it is linked: from physical address 0 on, nothing but itself."""
        text = self.layout.frames_of(Holder.TEXT)
        entry_text = self.layout.entry_text
        in_user_copy = self.layout.pti and self.layout.era == "6.1"
        for frames, bits in (
            (FrameRange(Holder.TEXT, text.first, entry_text.first), self.rx),
            (entry_text, self.rx | Pte.GLOBAL if in_user_copy else self.rx),
            (self.layout.frames_of(Holder.RODATA), self.ro),
            (self.layout.frames_of(Holder.DATA), self.rw),
        ):
            vaddr = START_KERNEL_MAP + frames.first * PAGE_SIZE
            self.build.map_pages(self.swapper, vaddr, (frames.first, frames.behind), bits)

    def descriptors(self) -> None:
        """Map the frame descriptors as one array, without those of holes in the RAM."""
        layout = self.layout
        base = layout.region(RegionName.VMEMMAP).start
        ram = layout.ram or ram_map(layout.nr_frames, has_hole=False)
        places = [one for one in layout.physical if one.holder == Holder.DESCRIPTORS]
        for nid, place in enumerate(places):
            first = place.first
            for piece, behind in ram.ram_of(nid):
                nr_pages = descriptor_pages(behind - piece)
                self._map_descriptors(base + piece * CACHE_LINE_BYTES, first, first + nr_pages)
                first += nr_pages

    def _map_descriptors(self, vaddr: int, first_pfn: int, behind_pfn: int) -> None:
        """Map a part of the array to frames.

        They need not be in order: 2 MiB of the array take a 2 MiB block of the descriptors' frames, as long as
        there are any, and what is left takes the frames before the first block and behind the last.
        """
        first_block = min(-(-first_pfn // PMD_PAGES) * PMD_PAGES, behind_pfn)
        behind_blocks = max(behind_pfn // PMD_PAGES * PMD_PAGES, first_block)
        for first, behind in (
            (first_block, behind_blocks),
            (first_pfn, first_block),
            (behind_blocks, behind_pfn),
        ):
            self.build.map_pages(self.swapper, vaddr, (first, behind), self.rw, PMD_PAGES)
            vaddr += (behind - first) * PAGE_SIZE

    def vmalloc(self) -> None:
        """Make the tables that the top-level entries of vmalloc lead to (preallocate_vmalloc_pages)."""
        region = self.layout.region(RegionName.VMALLOC)
        for vaddr in range(region.start, region.end, 1 << self.build.levels[0].shift):
            self.build.table_for(self.swapper, vaddr, 1)

    def cpu_entry_areas(self) -> None:
        """Map the IDT and each CPU's part; all of it is global."""
        layout = self.layout
        area = entry_area_layout(layout.era, layout.mode)
        if not area.pages:
            return
        vaddr = layout.region(RegionName.CPU_ENTRY_AREA).start
        bits = {
            Protection.READ_ONLY: self.ro | Pte.GLOBAL,
            Protection.READ_WRITE: self.rw | Pte.GLOBAL,
            Protection.EXECUTE: self.rx | Pte.GLOBAL,
        }
        self._map_own(vaddr, NR_IDT_PAGES, bits[Protection.READ_ONLY])
        vaddr += NR_IDT_PAGES * PAGE_SIZE
        for _ in range(layout.cpus):
            for pages in area.pages:
                first = vaddr + pages.offset * PAGE_SIZE
                if pages.part == Part.TRAMPOLINE:
                    text = layout.entry_text.first
                    frames = (text, text + pages.nr_pages)
                    self.build.map_pages(self.swapper, first, frames, bits[pages.protection], 1)
                else:
                    self._map_own(first, pages.nr_pages, bits[pages.protection])
            # The debug store's buffers have no frames until they are used, but their tables (PAGE_NONE).
            vaddr += area.nr_pages * PAGE_SIZE
            self.build.table_for(self.swapper, vaddr - PAGE_SIZE, len(self.build.levels) - 1)

    def _map_own(self, vaddr: int, nr_pages: int, bits: int) -> None:
        """Map frames of per-CPU data, taken here."""
        first = self.build.take(nr_pages)
        self.build.map_pages(self.swapper, vaddr, (first, first + nr_pages), bits, 1)

    def fixmap(self) -> None:
        """Make the fixmap's tables, which stay empty."""
        last = len(self.build.levels) - 1
        if self.layout.is_32bit:
            for name in (RegionName.KMAP, RegionName.BOOT_FIXMAP):
                self.build.table_for(self.swapper, self.layout.region(name).start, last)
            return
        for number in range(NR_FIXMAP_TABLES):
            self.build.table_for(self.swapper, VSYSCALL - number * HUGE_PAGE_SIZE, last)

    def user_copy(self) -> None:
        """Give the master's user copy what user mode may see of the kernel: every process's gets the same."""
        build = self.build
        user = self.swapper + 1
        self._clone(user, self.layout.region(RegionName.CPU_ENTRY_AREA).start, build.level_with(P4D_SHIFT))
        if self.layout.era == "6.1":
            text = self.layout.entry_text.first * PAGE_SIZE
            self._clone(user, START_KERNEL_MAP + text, len(build.levels) - 2)

    def _clone(self, user: int, vaddr: int, level: int) -> None:
        """Copy one entry of the kernel's copy into the user's, in tables of its own (pti_clone_pgtable)."""
        index = self.build.index(level, vaddr)
        source = self.build.tables[self.build.table_for(self.swapper, vaddr, level)]
        target = self.build.tables[self.build.table_for(user, vaddr, level, KERNEL_TABLE)]
        target[index] = source[index]


def plan_kernel_tables(layout: KernelLayout) -> KernelTables:
    """Return the master kernel page table of a machine, without writing it anywhere.

    Raises ValueError, in one line, for a layout that no kernel has or that has too few frames. Mode ``none`` has no
    tables.
    """
    _check(layout)
    if layout.mode == PagingMode.NONE:
        return KernelTables({}, NIL, layout.boot_frames[0])
    kernel = _KernelMap(layout)
    kernel.direct_map()
    if not layout.is_32bit:
        kernel.kernel_image()
        kernel.descriptors()
        if layout.era == "6.1":
            kernel.vmalloc()
    kernel.cpu_entry_areas()
    kernel.fixmap()
    if layout.pti:
        kernel.user_copy()
    return KernelTables(kernel.build.tables, kernel.swapper, kernel.build.next_pfn)


def build_kernel_tables(state: "State", layout: KernelLayout) -> KernelTables:
    """Write the master kernel page table into a machine, and the knobs that say where the kernel is.

    Frames of tables get RESERVED and PAGE_TABLE. Raises ValueError as ``plan_kernel_tables`` does.
    """
    plan = plan_kernel_tables(layout)
    table_shift = PAGING_MODES[layout.mode].table_shift
    page_flags: Any = state.page["page_flags"]
    for pfn, words in plan.tables.items():
        page_flags[pfn] = PageFlag.RESERVED | PageFlag.PAGE_TABLE
        # Words are zeroes already, and a page that is not written takes no memory.
        if words.any():
            state.pt_word[pfn << table_shift : (pfn + 1) << table_shift] = words
    knobs = {
        Knob.SWAPPER_PGD: plan.swapper_pgd,
        Knob.KERNEL_PGD_INDEX: layout.kernel_pgd_index,
        Knob.ERA: ERAS[layout.era],
        Knob.PTI: int(layout.pti),
        Knob.NX_BIT: layout.nx_bit,
    }
    if layout.mode != PagingMode.NONE:
        vmalloc = layout.region(RegionName.VMALLOC)
        knobs[Knob.VMALLOC_START] = signed(vmalloc.start)
        knobs[Knob.VMALLOC_LAST] = signed(vmalloc.end)
        modules = vmalloc if layout.is_32bit else layout.region(RegionName.MODULES)
        knobs[Knob.MODULES_START] = signed(modules.start)
        knobs[Knob.MODULES_LAST] = signed(modules.end)
        knobs[Knob.PAGE_OFFSET] = signed(layout.region(RegionName.DIRECT_MAP).start)
    for knob, value in knobs.items():
        state.knob[knob] = value
    return plan
