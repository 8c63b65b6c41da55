import itertools

import numpy as np
import pytest

from node.hw.paging import PagingMode
from node.kmap.memory_map import max_lowmem_bytes
from node.kmap.physical_map import (
    Holder,
    descriptor_pages,
    frames_of,
    lowmem_pages,
    physical_map,
    zero_pfn,
)
from shared.constants import GIB, MIB, PAGE_SIZE

FRAMES_512_MIB = 512 * MIB // PAGE_SIZE
MIB_PAGES = MIB // PAGE_SIZE


@pytest.mark.parametrize("era", ["6.1", "lecture"])
@pytest.mark.parametrize("mode", [PagingMode.NONE, PagingMode.BITS_32, PagingMode.LEVEL_4])
@pytest.mark.parametrize("nr_frames", [18432, FRAMES_512_MIB, 3 * GIB // PAGE_SIZE + 77])
def test_every_frame_has_one_holder(era: str, mode: PagingMode, nr_frames: int) -> None:
    ranges = physical_map(era, mode, nr_frames)
    assert ranges[0].first == 0
    assert ranges[-1].behind == nr_frames
    assert all(below.behind == above.first for below, above in itertools.pairwise(ranges))
    assert all(one.nr_frames > 0 for one in ranges)


def test_6_1_reserves_what_a_real_kernel_does() -> None:
    # Of 131072 frames Debian's 6.1 manages 117104 on a machine with 512 MiB.
    ranges = physical_map("6.1", PagingMode.LEVEL_4, FRAMES_512_MIB)
    reserved = np.zeros(FRAMES_512_MIB, bool)
    for one in ranges:
        reserved[one.first : one.behind] = one.reserved
    expected = np.zeros(FRAMES_512_MIB, bool)
    expected[:256] = True
    expected[4096 : 4096 + 11664] = True
    expected[FRAMES_512_MIB - 2048 :] = True
    assert np.array_equal(reserved, expected)
    assert FRAMES_512_MIB - int(reserved.sum()) == 117104


@pytest.mark.parametrize(("era", "first_mib"), [("6.1", 16), ("lecture", 1)])
def test_the_image_begins_where_its_era_loads_it(era: str, first_mib: int) -> None:
    ranges = physical_map(era, PagingMode.LEVEL_4, FRAMES_512_MIB)
    assert frames_of(Holder.TEXT, ranges).first == first_mib * MIB_PAGES
    assert frames_of(Holder.RODATA, ranges).first == frames_of(Holder.TEXT, ranges).behind
    assert frames_of(Holder.DATA, ranges).first == frames_of(Holder.RODATA, ranges).behind
    assert zero_pfn(ranges) == frames_of(Holder.DATA, ranges).first


@pytest.mark.parametrize("era", ["6.1", "lecture"])
def test_sections_end_at_2_mib_borders(era: str) -> None:
    ranges = physical_map(era, PagingMode.LEVEL_4, FRAMES_512_MIB)
    for holder in (Holder.TEXT, Holder.RODATA, Holder.DATA):
        assert frames_of(holder, ranges).behind % 512 == 0


def test_the_lecture_keeps_some_memory_for_dma() -> None:
    ranges = physical_map("lecture", PagingMode.LEVEL_4, FRAMES_512_MIB)
    free = frames_of(Holder.FREE, ranges)
    assert (free.first, free.behind) == (12 * MIB_PAGES, 16 * MIB_PAGES)


def test_a_32_bit_kernel_keeps_its_descriptors_in_lowmem() -> None:
    nr_frames = 2 * GIB // PAGE_SIZE
    ranges = physical_map("lecture", PagingMode.BITS_32, nr_frames)
    descriptors = frames_of(Holder.DESCRIPTORS, ranges)
    assert descriptors.behind == lowmem_pages("lecture", PagingMode.BITS_32, nr_frames)
    assert descriptors.behind == max_lowmem_bytes("lecture") // PAGE_SIZE
    assert descriptors.nr_frames == descriptor_pages(nr_frames)
    assert frames_of(Holder.HIGH, ranges).behind == nr_frames


def test_too_little_memory_for_the_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="memory: 60MiB is less than the 63MiB that its kernel needs"):
        physical_map("6.1", PagingMode.LEVEL_4, 60 * MIB_PAGES)


def test_an_unknown_era_is_refused() -> None:
    with pytest.raises(ValueError, match="is none of 6"):
        physical_map("2.4", PagingMode.LEVEL_4, FRAMES_512_MIB)
