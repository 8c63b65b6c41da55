"""The kernel's formulas for machines of six sizes and 1, 4 and 16 CPUs, against numbers worked out by hand.

The numbers are those of docs/formulas.md: from the source of Linux 6.1 with a shell and `bc`, not from the code under
test. DMA and DMA32 are as large as on a PC (DMA32 less the kernel), NORMAL is what is left.
"""

import re
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from node.build import build_state
from node.counters import Knob
from node.phys.watermarks import (
    default_min_free_kbytes,
    pcp_batch,
    pcp_high,
    setup_lowmem_reserve,
    setup_watermarks,
)
from node.phys.zone import NR_ZONES, ZONE_NAMES, ZoneId
from node.spec import MachineSpec
from node.state import State
from shared.constants import MIB

pytestmark = pytest.mark.three_ways

CPUS: Final = (1, 4, 16)
DOCUMENT: Final = Path(__file__).resolve().parents[3] / "docs" / "formulas.md"


class Zone(NamedTuple):
    """A zone's managed pages and what follows from them."""

    name: str
    managed: int
    min: int
    low: int
    high: int
    batch: int
    pcp_high: tuple[int, int, int]  # with 1, 4, 16 CPUs


class Size(NamedTuple):
    """A machine, what its kernel keeps free, and DMA's and DMA32's reserves (DMA's for DMA32, for Normal)."""

    name: str
    min_free_kbytes: int
    zones: tuple[Zone, ...]
    reserves: tuple[int, int, int]


SIZES: Final = (
    Size(
        "224 MiB",
        1687,
        (
            Zone("DMA", 3840, 36, 45, 54, 1, (45, 11, 4)),
            Zone("DMA32", 40653, 384, 480, 576, 7, (480, 120, 30)),
        ),
        (158, 158, 0),
    ),
    Size(
        "512 MiB",
        2737,
        (
            Zone("DMA", 3840, 22, 27, 32, 1, (27, 6, 4)),
            Zone("DMA32", 113261, 661, 826, 991, 31, (826, 206, 124)),
        ),
        (442, 442, 0),
    ),
    Size(
        "1 GiB",
        3950,
        (
            Zone("DMA", 3840, 15, 18, 21, 1, (18, 4, 4)),
            Zone("DMA32", 240000, 971, 1213, 1455, 63, (1213, 303, 252)),
        ),
        (937, 937, 0),
    ),
    Size(
        "4 GiB",
        8055,
        (
            Zone("DMA", 3840, 7, 10, 13, 1, (10, 4, 4)),
            Zone("DMA32", 765000, 1518, 2283, 3048, 63, (2283, 570, 252)),
            Zone("Normal", 245000, 486, 731, 976, 63, (731, 252, 252)),
        ),
        (2988, 3945, 957),
    ),
    Size(
        "16 GiB",
        16156,
        (
            Zone("DMA", 3840, 3, 6, 9, 1, (6, 4, 4)),
            Zone("DMA32", 765000, 757, 1522, 2287, 63, (1522, 380, 252)),
            Zone("Normal", 3310000, 3277, 6587, 9897, 63, (6587, 1646, 411)),
        ),
        (2988, 15917, 12929),
    ),
    Size(
        "64 GiB",
        32366,
        (
            Zone("DMA", 3840, 1, 4, 7, 1, (4, 4, 4)),
            Zone("DMA32", 765000, 378, 1143, 1908, 63, (1143, 285, 252)),
            Zone("Normal", 15600000, 7710, 23310, 38910, 63, (23310, 5827, 1456)),
        ),
        (2988, 63925, 60937),
    ),
)


def machine_with(size: Size) -> State:
    """Return a machine whose zones have the managed pages of a size; the formulas look at nothing else."""
    state = build_state(MachineSpec(96 * MIB))
    state.zone["managed"][:] = 0
    for zone in size.zones:
        state.zone[ZONE_NAMES.index(zone.name)].managed = zone.managed
    return state


def by_name(size: Size) -> str:
    return size.name


@pytest.mark.parametrize("size", SIZES, ids=by_name)
def test_min_free_kbytes_is_four_roots_of_the_memory(size: Size) -> None:
    assert default_min_free_kbytes(sum(zone.managed for zone in size.zones)) == size.min_free_kbytes


@pytest.mark.parametrize("size", SIZES, ids=by_name)
def test_watermarks_are_shared_out_by_managed_pages(size: Size) -> None:
    state = machine_with(size)
    state.knob[Knob.MIN_FREE_KBYTES] = size.min_free_kbytes
    setup_watermarks(state)
    for expected in size.zones:
        zone = state.zone[ZONE_NAMES.index(expected.name)]
        assert (zone.min_wmark, zone.low, zone.high) == (expected.min, expected.low, expected.high)


@pytest.mark.parametrize("size", SIZES, ids=by_name)
def test_a_zone_keeps_a_share_of_those_above(size: Size) -> None:
    state = machine_with(size)
    setup_lowmem_reserve(state)
    found = [
        int(state.lowmem_reserve[zone * NR_ZONES + highest])
        for zone, highest in (
            (ZoneId.DMA, ZoneId.DMA32),
            (ZoneId.DMA, ZoneId.NORMAL),
            (ZoneId.DMA32, ZoneId.NORMAL),
        )
    ]
    assert found == list(size.reserves)


@pytest.mark.parametrize("size", SIZES, ids=by_name)
def test_per_cpu_lists_share_the_low_watermark(size: Size) -> None:
    for zone in size.zones:
        assert pcp_batch(zone.managed) == zone.batch
        assert tuple(pcp_high(zone.low, cpus, zone.batch) for cpus in CPUS) == zone.pcp_high


def test_the_document_has_the_same_numbers() -> None:
    rows = {
        tuple(cell.strip().replace(",", "") for cell in line.strip("|").split("|"))
        for line in DOCUMENT.read_text().splitlines()
        if re.match(r"\| \d+ [MG]iB ", line)
    }
    expected = set()
    for size in SIZES:
        expected.add((size.name, *map(str, size.reserves)))
        for zone in size.zones:
            marks = (zone.managed, zone.min, zone.low, zone.high)
            expected.add((size.name, str(size.min_free_kbytes), zone.name, *map(str, marks)))
            expected.add((size.name, zone.name, str(zone.batch), *map(str, zone.pcp_high)))
    assert expected <= rows
