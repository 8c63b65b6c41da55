import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.hw.paging import PagingMode, is_canonical
from node.kmap.memory_map import (
    DEFAULT_PAGE_OFFSET,
    RegionName,
    find_region,
    max_lowmem_bytes,
    region_of,
    regions,
    signed,
)
from shared.constants import GIB, INT64_MAX, KIB, MIB, PAGE_SIZE, TIB

# Starts and ends as Documentation/x86/x86_64/mm.rst of 6.1 prints them.
LINUX_6_1_NEAR_THE_TOP = """
fffffc0000000000 fffffdffffffffff hole behind the KASAN shadow
fffffe0000000000 fffffe7fffffffff cpu_entry_area
fffffe8000000000 fffffeffffffffff hole behind cpu_entry_area
ffffff0000000000 ffffff7fffffffff %esp fixup stacks
ffffff8000000000 ffffffeeffffffff hole behind the fixup stacks
ffffffef00000000 fffffffeffffffff EFI
ffffffff00000000 ffffffff7fffffff hole behind EFI
ffffffff80000000 ffffffff9fffffff kernel text
ffffffffa0000000 fffffffffeffffff modules
ffffffffff000000 ffffffffff578fff hole behind modules
ffffffffff579000 ffffffffff5fffff fixmap
ffffffffff600000 ffffffffff600fff vsyscall
ffffffffff601000 ffffffffffdfffff hole behind vsyscall
ffffffffffe00000 ffffffffffffffff hole at the top
"""
LINUX_6_1_4_LEVELS = (
    """
0000000000000000 00007fffffffffff user space
0000800000000000 ffff7fffffffffff non-canonical hole
ffff800000000000 ffff87ffffffffff guard hole
ffff880000000000 ffff887fffffffff LDT remap
ffff888000000000 ffffc87fffffffff direct map
ffffc88000000000 ffffc8ffffffffff hole behind the direct map
ffffc90000000000 ffffe8ffffffffff vmalloc
ffffe90000000000 ffffe9ffffffffff hole behind vmalloc
ffffea0000000000 ffffeaffffffffff vmemmap
ffffeb0000000000 ffffebffffffffff hole behind vmemmap
ffffec0000000000 fffffbffffffffff KASAN shadow
"""
    + LINUX_6_1_NEAR_THE_TOP
)
LINUX_6_1_5_LEVELS = (
    """
0000000000000000 00ffffffffffffff user space
0100000000000000 feffffffffffffff non-canonical hole
ff00000000000000 ff0fffffffffffff guard hole
ff10000000000000 ff10ffffffffffff LDT remap
ff11000000000000 ff90ffffffffffff direct map
ff91000000000000 ff9fffffffffffff hole behind the direct map
ffa0000000000000 ffd1ffffffffffff vmalloc
ffd2000000000000 ffd3ffffffffffff hole behind vmalloc
ffd4000000000000 ffd5ffffffffffff vmemmap
ffd6000000000000 ffdeffffffffffff hole behind vmemmap
ffdf000000000000 fffffbffffffffff KASAN shadow
"""
    + LINUX_6_1_NEAR_THE_TOP
)
# Documentation/x86/x86_64/mm.txt of 4.15; what it leaves blank is the holes.
LECTURE_4_LEVELS = """
0000000000000000 00007fffffffffff user space
0000800000000000 ffff7fffffffffff non-canonical hole
ffff800000000000 ffff87ffffffffff guard hole
ffff880000000000 ffffc7ffffffffff direct map
ffffc80000000000 ffffc8ffffffffff hole behind the direct map
ffffc90000000000 ffffe8ffffffffff vmalloc
ffffe90000000000 ffffe9ffffffffff hole behind vmalloc
ffffea0000000000 ffffeaffffffffff vmemmap
ffffeb0000000000 ffffebffffffffff hole behind vmemmap
ffffec0000000000 fffffbffffffffff KASAN shadow
fffffc0000000000 fffffdffffffffff hole behind the KASAN shadow
fffffe0000000000 fffffe7fffffffff cpu_entry_area
fffffe8000000000 fffffeffffffffff LDT remap
ffffff0000000000 ffffff7fffffffff %esp fixup stacks
ffffff8000000000 ffffffeeffffffff hole behind the fixup stacks
ffffffef00000000 fffffffeffffffff EFI
ffffffff00000000 ffffffff7fffffff hole behind EFI
ffffffff80000000 ffffffff9fffffff kernel text
ffffffffa0000000 fffffffffeffffff modules
ffffffffff000000 ffffffffff578fff hole behind modules
ffffffffff579000 ffffffffff5fffff fixmap
ffffffffff600000 ffffffffff600fff vsyscall
ffffffffff601000 ffffffffffdfffff hole behind vsyscall
ffffffffffe00000 ffffffffffffffff hole at the top
"""
# By arch/x86/include/asm/pgtable_32_areas.h of 6.1 with 8 CPUs and no PAE.
LINUX_6_1_32_BITS = """
00000000 bfffffff user space
c0000000 f6ffdfff direct map
f6ffe000 f77fdfff hole behind the direct map
f77fe000 feffdfff vmalloc
feffe000 feffffff hole behind vmalloc
ff000000 ff3fffff persistent kmap
ff400000 ff7fffff LDT remap
ff800000 ff958fff cpu_entry_area
ff959000 ffd36fff hole behind cpu_entry_area
ffd37000 fff37fff boot-time fixmap
fff38000 ffffefff fixmap
fffff000 ffffffff hole at the top
"""
# 896 MiB of lowmem, vmalloc 8 MiB behind, the persistent kmap at 0xff800000: the map of courses.
LECTURE_32_BITS = """
00000000 bfffffff user space
c0000000 f7ffffff direct map
f8000000 f87fffff hole behind the direct map
f8800000 ff7fdfff vmalloc
ff7fe000 ff7fffff hole behind vmalloc
ff800000 ffbfffff persistent kmap
ffc00000 ffd36fff hole behind the persistent kmap
ffd37000 fff37fff boot-time fixmap
fff38000 ffffefff fixmap
fffff000 ffffffff hole at the top
"""
GOLDEN = [
    ("6.1", PagingMode.LEVEL_4, LINUX_6_1_4_LEVELS),
    ("6.1", PagingMode.LEVEL_5, LINUX_6_1_5_LEVELS),
    ("6.1", PagingMode.BITS_32, LINUX_6_1_32_BITS),
    ("lecture", PagingMode.LEVEL_4, LECTURE_4_LEVELS),
    ("lecture", PagingMode.BITS_32, LECTURE_32_BITS),
]
KERNELS = [(era, mode) for era, mode, _ in GOLDEN]
ALL = [*KERNELS, ("6.1", PagingMode.NONE), ("lecture", PagingMode.NONE)]


@pytest.mark.parametrize(("era", "mode", "golden"), GOLDEN)
def test_the_map_is_the_documents_line_by_line(era: str, mode: PagingMode, golden: str) -> None:
    expected = [line.split(maxsplit=2) for line in golden.split("\n") if line]
    found = regions(era, mode)
    assert [(region.start, region.end, region.name) for region in found] == [
        (int(start, 16), int(end, 16), name) for start, end, name in expected
    ]


# Sizes as the documents state them beside the addresses.
SIZES = [
    ("6.1", PagingMode.LEVEL_4, RegionName.USER, 128 * TIB),
    ("6.1", PagingMode.LEVEL_4, RegionName.GUARD_HOLE, 8 * TIB),
    ("6.1", PagingMode.LEVEL_4, RegionName.LDT, TIB // 2),
    ("6.1", PagingMode.LEVEL_4, RegionName.DIRECT_MAP, 64 * TIB),
    ("6.1", PagingMode.LEVEL_4, RegionName.VMALLOC, 32 * TIB),
    ("6.1", PagingMode.LEVEL_4, RegionName.VMEMMAP, TIB),
    ("6.1", PagingMode.LEVEL_4, RegionName.KASAN, 16 * TIB),
    ("6.1", PagingMode.LEVEL_4, RegionName.BEHIND_FIXUP_STACKS, 444 * GIB),
    ("6.1", PagingMode.LEVEL_4, RegionName.EFI, 64 * GIB),
    ("6.1", PagingMode.LEVEL_4, RegionName.KERNEL_TEXT, 512 * MIB),
    ("6.1", PagingMode.LEVEL_4, RegionName.MODULES, 1520 * MIB),
    ("6.1", PagingMode.LEVEL_4, RegionName.VSYSCALL, 4 * KIB),
    ("6.1", PagingMode.LEVEL_5, RegionName.USER, 64 * 1024 * TIB),
    ("6.1", PagingMode.LEVEL_5, RegionName.DIRECT_MAP, 32 * 1024 * TIB),
    ("6.1", PagingMode.LEVEL_5, RegionName.VMALLOC, 12800 * TIB),
    ("lecture", PagingMode.LEVEL_4, RegionName.DIRECT_MAP, 64 * TIB),
    ("lecture", PagingMode.LEVEL_4, RegionName.LDT, TIB // 2),
    ("lecture", PagingMode.BITS_32, RegionName.DIRECT_MAP, 896 * MIB),
]


@pytest.mark.parametrize(("era", "mode", "name", "nr_bytes"), SIZES)
def test_regions_have_the_sizes_that_the_documents_state(
    era: str, mode: PagingMode, name: RegionName, nr_bytes: int
) -> None:
    assert find_region(name, era, mode).nr_bytes == nr_bytes


@pytest.mark.parametrize(("era", "mode"), ALL)
@pytest.mark.parametrize("memory_bytes", [None, 512 * MIB, 3 * GIB])
def test_every_address_is_in_exactly_one_region(era: str, mode: PagingMode, memory_bytes: int | None) -> None:
    found = regions(era, mode, memory_bytes=memory_bytes)
    assert found[0].start == 0
    assert all(below.end + 1 == above.start for below, above in itertools.pairwise(found))
    assert all(region.nr_bytes > 0 for region in found)
    assert len({region.name for region in found}) == len(found)


@given(address=st.integers(0, 2**64 - 1), kernel=st.sampled_from([KERNELS[0], KERNELS[1], KERNELS[3]]))
def test_any_64_bit_address_has_a_region(address: int, kernel: tuple[str, PagingMode]) -> None:
    era, mode = kernel
    region = region_of(address, era, mode)
    assert region.start <= address <= region.end
    assert (region.name == RegionName.NON_CANONICAL) == (not is_canonical(mode, address))
    assert (region.name == RegionName.USER) == (is_canonical(mode, address) and address <= INT64_MAX)


@pytest.mark.parametrize(("era", "mode"), ALL)
def test_both_ends_of_a_region_are_in_it(era: str, mode: PagingMode) -> None:
    for region in regions(era, mode):
        assert region_of(region.start, era, mode) == region
        assert region_of(region.end, era, mode) == region


@given(
    page_offset=st.integers(0x100, 0x380).map(lambda entry: entry * 4 * MIB),
    memory=st.integers(64 * MIB, 8 * GIB),
)
def test_any_split_of_32_bits_leaves_no_gap(page_offset: int, memory: int) -> None:
    memory -= memory % PAGE_SIZE
    for era in ("6.1", "lecture"):
        found = regions(era, PagingMode.BITS_32, page_offset, memory)
        assert all(below.end + 1 == above.start for below, above in itertools.pairwise(found))
        assert all(region.nr_bytes > 0 for region in found)
        lowmem = find_region(RegionName.DIRECT_MAP, era, PagingMode.BITS_32, page_offset, memory)
        assert lowmem.start == page_offset
        assert lowmem.nr_bytes == min(memory, max_lowmem_bytes(era, page_offset))


def test_a_32_bit_machine_with_little_memory_has_more_vmalloc() -> None:
    vmalloc = find_region(RegionName.VMALLOC, "6.1", PagingMode.BITS_32, DEFAULT_PAGE_OFFSET, 256 * MIB)
    assert vmalloc.start == 0xC0000000 + (256 + 8) * MIB
    assert vmalloc.end == 0xFEFFDFFF


def test_maxmem_is_what_vmalloc_and_the_fixmap_leave() -> None:
    assert max_lowmem_bytes("lecture") == 896 * MIB
    assert max_lowmem_bytes("6.1") == 880 * MIB - 8 * KIB
    assert max_lowmem_bytes("lecture", 0x80000000) == 1920 * MIB


def test_without_paging_addresses_are_those_of_the_memory() -> None:
    assert [region.name for region in regions("6.1", PagingMode.NONE)] == ["physical memory"]
    assert region_of(512 * MIB, "6.1", PagingMode.NONE, memory_bytes=512 * MIB).name == "no memory"
    assert region_of(512 * MIB - 1, "6.1", PagingMode.NONE, memory_bytes=512 * MIB).name == "physical memory"


def test_holes_are_named_and_nothing_else_is_a_hole() -> None:
    holes = {region.name for region in regions("6.1", PagingMode.LEVEL_4) if region.is_hole}
    assert {"guard hole", "non-canonical hole", "hole at the top"} < holes
    assert not holes & {"user space", "direct map", "vmalloc", "cpu_entry_area", "kernel text", "fixmap"}


def test_kernels_know_the_upper_half_as_negative_addresses() -> None:
    assert signed(0) == 0
    assert signed(0xFFFFFFFFFFFFFFFF) == -1
    assert signed(0xFFFF888000000000) == -119 * TIB - TIB // 2
    assert signed(0x00007FFFFFFFFFFF) == 128 * TIB - 1


@pytest.mark.parametrize(
    ("address", "mode", "message"),
    [
        (1 << 64, PagingMode.LEVEL_4, "address: 0x10000000000000000 is outside the 64 bits of 4level paging"),
        (-1, PagingMode.LEVEL_5, "address: -0x1 is outside the 64 bits of 5level paging"),
        (1 << 32, PagingMode.BITS_32, "address: 0x100000000 is outside the 32 bits of 32bit paging"),
        (1 << 52, PagingMode.NONE, "address: 0x10000000000000 is outside the 52 bits of none paging"),
    ],
)
def test_an_address_wider_than_the_mode_is_refused(address: int, mode: PagingMode, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        region_of(address, "6.1", mode)


@pytest.mark.parametrize(
    ("era", "mode", "page_offset", "message"),
    [
        ("2.4", PagingMode.LEVEL_4, DEFAULT_PAGE_OFFSET, "era: '2.4' is none of 6.1, lecture"),
        ("lecture", PagingMode.LEVEL_5, DEFAULT_PAGE_OFFSET, "era: lecture has no 5level paging"),
        ("6.1", PagingMode.BITS_32, 0xC0001000, "page_offset: 0xc0001000 is not a multiple of 4 MiB"),
        ("6.1", PagingMode.BITS_32, 0, "page_offset: 0x0 is not a multiple of 4 MiB below 4 GiB"),
        (
            "lecture",
            PagingMode.BITS_32,
            0xF8000000,
            "page_offset: 0xf8000000 leaves 0 MiB of lowmem, less than 64",
        ),
    ],
)
def test_a_map_that_no_kernel_has_is_refused(
    era: str, mode: PagingMode, page_offset: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        regions(era, mode, page_offset)


def test_signed_refuses_what_is_no_address() -> None:
    with pytest.raises(ValueError, match="address: -0x1 is not one of 64 bits"):
        signed(-1)
