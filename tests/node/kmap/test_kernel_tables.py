import pytest

from node.counters import Era, Knob
from node.hw.paging import PagingMode
from node.hw.pte import NX, PFN_MASK, Pte
from node.kmap.cpu_entry_area import Part, entry_area_page, entry_area_pages
from node.kmap.kernel_tables import KernelLayout, plan_kernel_tables
from node.kmap.memory_map import RegionName, region_of, signed
from node.kmap.physical_map import Holder, descriptor_pages, lowmem_pages
from node.phys.page import PageFlag
from node.state import State
from shared.constants import GIB, MIB, NIL, PAGE_SHIFT, PAGE_SIZE, TABLE_SHIFT
from tests.node.kmap.kernel_machine import (
    FRAMES_512_MIB,
    GIB_1,
    KIB_4,
    MIB_2,
    MIB_4,
    Leaf,
    kernel_machine,
    leaves,
    walk,
)

GIB_FRAMES = GIB // PAGE_SIZE
# Sizes with nothing, a page, some pages, and a large page and a page behind the last GiB.
SIZES = [
    FRAMES_512_MIB,
    *(3 * GIB_FRAMES + odd for odd in (0, 1, 77, 513)),
    64 * GIB_FRAMES,
    64 * GIB_FRAMES + 1029,
]
KERNELS = [("6.1", PagingMode.LEVEL_4), ("6.1", PagingMode.LEVEL_5), ("lecture", PagingMode.LEVEL_4)]
TEXT_MAP = 0xFFFFFFFF80000000


def in_region(found: list[Leaf], layout: KernelLayout, name: RegionName) -> list[Leaf]:
    region = layout.region(name)
    return [leaf for leaf in found if region.start <= leaf.vaddr <= region.end]


def largest_pages(nr_frames: int, sizes: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return (first frame, size) of each page: the largest whose block is all memory, and not the first one."""
    found = []
    pfn = 0
    while pfn < nr_frames:
        for shift in sizes:
            pages = 1 << (shift - PAGE_SHIFT)
            if pages == 1 or (pfn % pages == 0 and pfn > 0 and pfn + pages <= nr_frames):
                found.append((pfn, shift))
                pfn += pages
                break
    return found


@pytest.mark.parametrize(("era", "mode"), KERNELS)
@pytest.mark.parametrize("nr_frames", SIZES)
def test_the_direct_map_has_all_memory_in_the_largest_pages(
    era: str, mode: PagingMode, nr_frames: int
) -> None:
    layout = KernelLayout(nr_frames, mode, era)
    state, plan = kernel_machine(layout)
    found = in_region(leaves(state, plan.swapper_pgd), layout, RegionName.DIRECT_MAP)
    assert [(leaf.pfn, leaf.shift) for leaf in found] == largest_pages(nr_frames, (GIB_1, MIB_2, KIB_4))
    base = layout.region(RegionName.DIRECT_MAP).start
    assert all(leaf.vaddr == base + leaf.pfn * PAGE_SIZE for leaf in found)


@pytest.mark.parametrize("nr_frames", SIZES)
def test_a_walk_of_the_direct_map_gives_the_frame(nr_frames: int) -> None:
    layout = KernelLayout(nr_frames)
    state, plan = kernel_machine(layout)
    base = layout.region(RegionName.DIRECT_MAP).start
    borders = [0, 511, 512, GIB_FRAMES // 2 - 1, GIB_FRAMES, 3 * GIB_FRAMES - 1, 3 * GIB_FRAMES]
    sample = [pfn for pfn in borders if pfn < nr_frames] + list(range(0, nr_frames, nr_frames // 499))
    for pfn in [*sample, nr_frames - 1]:
        found = walk(state, plan.swapper_pgd, base + pfn * PAGE_SIZE + 123)
        assert found is not None
        assert found.pfn == pfn
        assert not found.user
        assert not found.execute
    assert walk(state, plan.swapper_pgd, base + nr_frames * PAGE_SIZE) is None


def test_a_processor_without_1_gib_pages_gets_2_mib_ones() -> None:
    nr_frames = 3 * GIB_FRAMES + 77
    layout = KernelLayout(nr_frames, gigantic=False)
    state, plan = kernel_machine(layout)
    found = in_region(leaves(state, plan.swapper_pgd), layout, RegionName.DIRECT_MAP)
    assert [(leaf.pfn, leaf.shift) for leaf in found] == largest_pages(nr_frames, (MIB_2, KIB_4))


@pytest.mark.parametrize(("era", "mode"), KERNELS)
def test_the_image_is_mapped_where_it_is_linked_and_nothing_else(era: str, mode: PagingMode) -> None:
    layout = KernelLayout(FRAMES_512_MIB, mode, era)
    state, plan = kernel_machine(layout)
    found = in_region(leaves(state, plan.swapper_pgd), layout, RegionName.KERNEL_TEXT)
    assert all(leaf.vaddr == TEXT_MAP + leaf.pfn * PAGE_SIZE for leaf in found)
    assert found[0].pfn == layout.frames_of(Holder.TEXT).first
    assert found[-1].pfn + (1 << (found[-1].shift - PAGE_SHIFT)) == layout.frames_of(Holder.DATA).behind
    # The lecture's image begins at 1 MiB, in the middle of a large page.
    assert sum(leaf.shift == KIB_4 for leaf in found) == (256 if era == "lecture" else 0)
    rights = {
        Holder.TEXT: (False, True),
        Holder.RODATA: (False, False),
        Holder.DATA: (True, False),
    }
    for leaf in found:
        holder = next(one.holder for one in layout.physical if one.first <= leaf.pfn < one.behind)
        assert (bool(leaf.word & Pte.WRITE), not leaf.word & NX) == rights[holder]


@pytest.mark.parametrize(("era", "mode"), KERNELS)
@pytest.mark.parametrize("pti", [True, False])
def test_no_page_of_the_kernel_can_be_written_and_executed(era: str, mode: PagingMode, pti: bool) -> None:
    layout = KernelLayout(FRAMES_512_MIB, mode, era, pti=pti)
    state, plan = kernel_machine(layout)
    found = leaves(state, plan.swapper_pgd)
    assert not [leaf for leaf in found if leaf.word & Pte.WRITE and not leaf.word & NX]
    text = layout.frames_of(Holder.TEXT)
    rodata = layout.frames_of(Holder.RODATA)
    for leaf in found:
        # Whatever the address, text and read-only data cannot be written, and only text is executed.
        if text.first <= leaf.pfn < rodata.behind:
            assert not leaf.word & Pte.WRITE
        if not leaf.word & NX:
            assert text.first <= leaf.pfn < text.behind
        assert not leaf.word & Pte.USER


def test_a_processor_without_execute_disable_gets_entries_without_it() -> None:
    state, plan = kernel_machine(KernelLayout(FRAMES_512_MIB, nx=False))
    assert not [leaf for leaf in leaves(state, plan.swapper_pgd) if leaf.word & NX]
    assert state.knob[Knob.NX_BIT] == 0


def test_per_cpu_memory_is_apart_from_tables_and_entry_areas() -> None:
    layout = KernelLayout(FRAMES_512_MIB, cpus=64)
    own = {layout.per_cpu_pfn(cpu) for cpu in range(64)}
    assert len(own) == 64
    assert min(own) == layout.boot_frames[1]
    assert max(own) == layout.frames_of(Holder.BOOT).behind - 1
    assert plan_kernel_tables(layout).next_pfn <= min(own)


@pytest.mark.parametrize(("era", "mode"), KERNELS)
def test_all_is_global_without_isolation(era: str, mode: PagingMode) -> None:
    state, plan = kernel_machine(KernelLayout(FRAMES_512_MIB, mode, era, pti=False))
    assert all(leaf.word & Pte.GLOBAL for leaf in leaves(state, plan.swapper_pgd))


@pytest.mark.parametrize(("era", "mode"), KERNELS)
def test_with_isolation_only_what_both_copies_map_is_global(era: str, mode: PagingMode) -> None:
    layout = KernelLayout(FRAMES_512_MIB, mode, era)
    state, plan = kernel_machine(layout)
    kernel_copy = [leaf for leaf in leaves(state, plan.swapper_pgd) if leaf.word & Pte.GLOBAL]
    assert kernel_copy == leaves(state, plan.swapper_pgd + 1)


@pytest.mark.parametrize(("era", "mode"), KERNELS)
def test_nothing_is_mapped_in_a_hole(era: str, mode: PagingMode) -> None:
    state, plan = kernel_machine(KernelLayout(FRAMES_512_MIB, mode, era, cpus=4))
    names = {region_of(leaf.vaddr, era, mode).name for leaf in leaves(state, plan.swapper_pgd)}
    assert names == {"direct map", "vmemmap", "cpu_entry_area", "kernel text"}


@pytest.mark.parametrize("nr_frames", [FRAMES_512_MIB, 3 * GIB_FRAMES + 77, 20000, 64 * GIB_FRAMES])
def test_descriptors_are_one_array_in_2_mib_pages_where_there_are_blocks(nr_frames: int) -> None:
    layout = KernelLayout(nr_frames)
    state, plan = kernel_machine(layout)
    found = in_region(leaves(state, plan.swapper_pgd), layout, RegionName.VMEMMAP)
    vaddr = layout.region(RegionName.VMEMMAP).start
    frames: list[int] = []
    for leaf in found:
        assert leaf.vaddr == vaddr
        vaddr += 1 << leaf.shift
        frames += range(leaf.pfn, leaf.pfn + (1 << (leaf.shift - PAGE_SHIFT)))
    place = layout.frames_of(Holder.DESCRIPTORS)
    assert sorted(frames) == list(range(place.first, place.behind))
    assert len(frames) == descriptor_pages(nr_frames)
    blocks = max(place.behind // 512 - -(-place.first // 512), 0)
    assert sum(leaf.shift == MIB_2 for leaf in found) == blocks


@pytest.mark.parametrize(
    ("era", "mode", "entries", "made"),
    [
        ("6.1", PagingMode.LEVEL_4, range(402, 466), True),
        ("6.1", PagingMode.LEVEL_5, range(416, 466), True),
        ("lecture", PagingMode.LEVEL_4, range(402, 466), False),
    ],
)
def test_entries_of_vmalloc_are_made_at_boot_or_not_at_all(
    era: str, mode: PagingMode, entries: range, made: bool
) -> None:
    layout = KernelLayout(FRAMES_512_MIB, mode, era)
    state, plan = kernel_machine(layout)
    words = [state.pt_word[(plan.swapper_pgd << TABLE_SHIFT) + index] for index in entries]
    assert all(bool(word) == made for word in words)
    assert not state.pt_word[(plan.swapper_pgd << TABLE_SHIFT) + entries.start - 1]
    assert not state.pt_word[(plan.swapper_pgd << TABLE_SHIFT) + entries.stop]
    assert not in_region(leaves(state, plan.swapper_pgd), layout, RegionName.VMALLOC)


@pytest.mark.parametrize(("era", "mode"), KERNELS)
def test_the_fixmap_has_two_empty_tables(era: str, mode: PagingMode) -> None:
    state, plan = kernel_machine(KernelLayout(FRAMES_512_MIB, mode, era))
    table = plan.swapper_pgd
    for _ in range(2 if mode == PagingMode.LEVEL_4 else 3):
        table = state.pt_word[(table << TABLE_SHIFT) + 511] >> PAGE_SHIFT & PFN_MASK
    present = [index for index in range(512) if state.pt_word[(table << TABLE_SHIFT) + index]]
    assert present == [506, 507]
    for index in present:
        fixmap = state.pt_word[(table << TABLE_SHIFT) + index] >> PAGE_SHIFT & PFN_MASK
        assert not state.pt_word[fixmap << TABLE_SHIFT : (fixmap + 1) << TABLE_SHIFT].any()


# As oops messages of such kernels print the address of the second CPU's GDT.
@pytest.mark.parametrize(("era", "gdt"), [("6.1", 0xFFFFFE000003C000), ("lecture", 0xFFFFFE000002D000)])
def test_the_second_cpus_gdt_is_where_kernels_have_it(era: str, gdt: int) -> None:
    page = entry_area_page(era, PagingMode.LEVEL_4, 1, Part.GDT)
    assert 0xFFFFFE0000000000 + page * PAGE_SIZE == gdt
    state, plan = kernel_machine(KernelLayout(FRAMES_512_MIB, era=era, cpus=2))
    found = walk(state, plan.swapper_pgd, gdt)
    assert found is not None
    assert found.is_global
    assert not found.write


@pytest.mark.parametrize(("era", "mode"), KERNELS)
def test_each_cpu_has_its_own_entry_area_with_holes_between_the_stacks(era: str, mode: PagingMode) -> None:
    cpus = 20
    layout = KernelLayout(FRAMES_512_MIB, mode, era, cpus=cpus)
    state, plan = kernel_machine(layout)
    found = in_region(leaves(state, plan.swapper_pgd), layout, RegionName.CPU_ENTRY_AREA)
    assert all(leaf.shift == KIB_4 for leaf in found)
    own = [leaf.pfn for leaf in found if leaf.word & NX]
    assert len(set(own)) == len(own)
    a_cpu = {"6.1": 17, "lecture": 11}[era]
    assert len(own) == 1 + cpus * a_cpu - (cpus if era == "6.1" else 0)
    assert len(found) - len(own) == (cpus if era == "lecture" else 0)
    if era == "6.1":
        start = layout.region(RegionName.CPU_ENTRY_AREA).start
        offset = entry_area_page(era, mode, 3, Part.NMI_STACK)
        mapped = [walk(state, plan.swapper_pgd, start + (offset + page) * PAGE_SIZE) for page in range(-1, 3)]
        assert [found is not None for found in mapped] == [False, True, True, False]


def test_the_lectures_trampoline_is_the_entry_text() -> None:
    layout = KernelLayout(FRAMES_512_MIB, era="lecture", cpus=2)
    state, plan = kernel_machine(layout)
    page = entry_area_page("lecture", PagingMode.LEVEL_4, 1, Part.TRAMPOLINE)
    found = walk(state, plan.swapper_pgd, 0xFFFFFE0000000000 + page * PAGE_SIZE)
    assert found is not None
    assert found.execute
    assert found.pfn == layout.entry_text.first
    with pytest.raises(KeyError):
        entry_area_page("6.1", PagingMode.LEVEL_4, 1, Part.TRAMPOLINE)


def test_tables_of_a_debug_stores_buffers_are_there() -> None:
    # 9 CPUs' parts of 59 pages end in the second table of 512 pages; what is there last is not mapped.
    assert entry_area_pages("6.1", PagingMode.LEVEL_4, 9) > 512
    layout = KernelLayout(FRAMES_512_MIB, cpus=9)
    with_nine = len(plan_kernel_tables(layout).tables)
    assert with_nine == len(plan_kernel_tables(KernelLayout(FRAMES_512_MIB, cpus=8)).tables) + 1


def test_tables_take_frames_of_the_range_and_are_flagged() -> None:
    layout = KernelLayout(FRAMES_512_MIB, frames=(14001, 15000))
    state, plan = kernel_machine(layout)
    flags = state.page["page_flags"]
    tables = {pfn for pfn in range(FRAMES_512_MIB) if flags[pfn]}
    assert tables == set(plan.tables)
    assert min(tables) == plan.swapper_pgd == 14002  # the pair is aligned to 8 KiB
    assert max(tables) < plan.next_pfn <= 15000
    assert all(flags[pfn] == PageFlag.RESERVED | PageFlag.PAGE_TABLE for pfn in tables)


def test_every_entry_of_a_table_leads_to_one_of_the_tables() -> None:
    _, plan = kernel_machine(KernelLayout(FRAMES_512_MIB, PagingMode.LEVEL_5))
    targets = {
        int(word) >> PAGE_SHIFT & PFN_MASK
        for words in plan.tables.values()
        for word in words
        if word & Pte.PRESENT and word & (Pte.USER | Pte.HUGE | Pte.GLOBAL) == Pte.USER
    }
    assert targets < set(plan.tables)


def test_a_large_machine_without_large_pages_has_room_for_its_tables() -> None:
    layout = KernelLayout(1024 * GIB_FRAMES, cpus=64, gigantic=False)
    assert plan_kernel_tables(layout).next_pfn <= layout.frames_of(Holder.BOOT).behind


def test_the_knobs_say_where_the_kernel_is() -> None:
    state, plan = kernel_machine(KernelLayout(FRAMES_512_MIB, era="lecture"))
    assert state.knob[Knob.SWAPPER_PGD] == plan.swapper_pgd
    assert state.knob[Knob.KERNEL_PGD_INDEX] == 256
    assert state.knob[Knob.ERA] == Era.LECTURE
    assert state.knob[Knob.PTI] == 1
    assert state.knob[Knob.NX_BIT] == NX
    assert state.knob[Knob.VMALLOC_START] == signed(0xFFFFC90000000000)
    assert state.knob[Knob.VMALLOC_LAST] == signed(0xFFFFE8FFFFFFFFFF)
    assert state.knob[Knob.PAGE_OFFSET] == signed(0xFFFF880000000000)


# --- 32 bits ------------------------------------------------------------------------------------------------


def kernel_of_32_bits(
    era: str, nr_frames: int, page_offset: int = 0xC0000000
) -> tuple[State, KernelLayout, list[Leaf]]:
    layout = KernelLayout(nr_frames, PagingMode.BITS_32, era, pti=False, page_offset=page_offset)
    state, plan = kernel_machine(layout)
    return state, layout, leaves(state, plan.swapper_pgd)


@pytest.mark.parametrize("era", ["6.1", "lecture"])
@pytest.mark.parametrize("nr_frames", [FRAMES_512_MIB, FRAMES_512_MIB + 77, 3 * GIB_FRAMES])
@pytest.mark.parametrize("page_offset", [0xC0000000, 0x80000000])
def test_lowmem_is_mapped_in_4_mib_pages_but_for_both_ends(
    era: str, nr_frames: int, page_offset: int
) -> None:
    _, layout, found = kernel_of_32_bits(era, nr_frames, page_offset)
    lowmem = in_region(found, layout, RegionName.DIRECT_MAP)
    behind = lowmem_pages(era, PagingMode.BITS_32, nr_frames, page_offset)
    expected = largest_pages(behind, (MIB_4, KIB_4))
    if era == "lecture":
        # Read-only data ends at 10 MiB: 4 MiB pages would give it and the data behind it the same rights.
        expected = [page for page in expected if page[0] != 8 * MIB // PAGE_SIZE]
        expected += [(pfn, KIB_4) for pfn in range(2048, 3072)]
    assert [(leaf.pfn, leaf.shift) for leaf in lowmem] == sorted(expected)
    assert all(leaf.vaddr == page_offset + leaf.pfn * PAGE_SIZE for leaf in lowmem)


def test_entries_of_32_bits_fit_in_32_bits() -> None:
    _, _, found = kernel_of_32_bits("6.1", 3 * GIB_FRAMES)
    assert all(0 <= leaf.word < 1 << 32 for leaf in found)
    assert all(leaf.word & Pte.GLOBAL for leaf in found)


def test_a_32_bit_kernel_has_tables_for_kmap_and_fixmap() -> None:
    state, layout, _ = kernel_of_32_bits("lecture", FRAMES_512_MIB)
    pgd = state.knob[Knob.SWAPPER_PGD] << 10
    present = [index for index in range(1024) if state.pt_word[pgd + index]]
    assert present == [*range(768, 768 + 128), 0xFF800000 >> 22, 0xFFC00000 >> 22]
    assert state.knob[Knob.KERNEL_PGD_INDEX] == 768
    assert state.knob[Knob.NX_BIT] == 0
    assert layout.kernel_pgd_index == 768


def test_without_paging_there_are_no_tables() -> None:
    state, plan = kernel_machine(KernelLayout(FRAMES_512_MIB, PagingMode.NONE, pti=False))
    assert not plan.tables
    assert state.knob[Knob.SWAPPER_PGD] == NIL
    assert not state.page["page_flags"].any()


# --- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (
            KernelLayout(FRAMES_512_MIB, PagingMode.BITS_32),
            "pti: on needs 4level or 5level paging, not 32bit",
        ),
        (KernelLayout(FRAMES_512_MIB, PagingMode.NONE), "pti: on needs 4level or 5level paging, not none"),
        (
            KernelLayout(FRAMES_512_MIB, PagingMode.BITS_32, pti=False, cpus=9),
            "cpus: 9 is above the 8 of a 32-bit kernel",
        ),
        (KernelLayout(FRAMES_512_MIB, PagingMode.LEVEL_5, "lecture"), "era: lecture has no 5level paging"),
        (
            KernelLayout((1 << 34) + 1),
            "memory: 17179869185 frames are above the 17179869184 that 4level paging maps directly",
        ),
        (
            KernelLayout(FRAMES_512_MIB, frames=(14000, 14010)),
            "memory: the kernel's page tables need more frames than the 10 reserved for them",
        ),
    ],
)
def test_a_layout_that_no_kernel_has_is_refused(layout: KernelLayout, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_kernel_tables(layout)
