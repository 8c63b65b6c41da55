"""Watermarks and per-CPU list limits, against a real kernel's /proc/zoneinfo.

The figures are those of Linux 6.1.0-56-amd64 (Debian 12) in a virtual machine with 512 MiB of memory, one CPU
and vm.min_free_kbytes 2725: zones as its /proc/zoneinfo shows them after boot.
"""

import pytest

from node.build import build_state
from node.phys.watermarks import default_min_free_kbytes, pcp_batch
from node.phys.zone import NR_ZONES, ZoneId
from node.spec import MachineSpec
from shared.constants import GIB, MIB, PAGE_SIZE

pytestmark = pytest.mark.three_ways

DMA = {
    "managed": 3840,
    "min_wmark": 22,
    "low": 27,
    "high": 32,
    "protection": 442,
    "pcp_high": 27,
    "pcp_batch": 1,
}
DMA32 = {
    "managed": 113264,
    "min_wmark": 658,
    "low": 822,
    "high": 986,
    "protection": 0,
    "pcp_high": 822,
    "pcp_batch": 31,
}


@pytest.mark.parametrize(("zone_id", "linux"), [(ZoneId.DMA, DMA), (ZoneId.DMA32, DMA32)])
def test_a_512_mib_machine_has_the_zones_of_linux(zone_id: ZoneId, linux: dict[str, int]) -> None:
    state = build_state(MachineSpec(512 * MIB, min_free_kbytes=2725))
    zone = state.zone[zone_id]
    lists = state.pcp[zone_id]
    found = {name: getattr(zone, name) for name in ("managed", "min_wmark", "low", "high")}
    found["protection"] = state.lowmem_reserve[zone_id * NR_ZONES + ZoneId.MOVABLE]
    assert found | {"pcp_high": lists.high, "pcp_batch": lists.batch} == linux
    assert zone.nr_free == zone.managed


@pytest.mark.parametrize(
    ("memory_mib", "kbytes"),
    # The table in the comment above calculate_min_free_kbytes (mm/page_alloc.c), and the limits.
    [
        (0, 128),
        (16, 512),
        (32, 724),
        (64, 1024),
        (128, 1448),
        (512, 2896),
        (1024, 4096),
        (16384, 16384),
        (1 << 30, 262144),
    ],
)
def test_min_free_kbytes_follows_memory_as_in_linux(memory_mib: int, kbytes: int) -> None:
    assert default_min_free_kbytes(memory_mib * MIB // PAGE_SIZE) == kbytes


@pytest.mark.parametrize(
    ("managed", "batch"), [(0, 1), (3840, 1), (113_264, 31), (1 << 20, 63), (1 << 30, 63)]
)
def test_a_batch_is_one_less_than_a_power_of_two(managed: int, batch: int) -> None:
    assert pcp_batch(managed) == batch


def test_a_machine_with_more_than_4_gib_has_a_normal_zone() -> None:
    state = build_state(MachineSpec(5 * GIB))
    normal = state.zone[ZoneId.NORMAL]
    assert normal.start_pfn == 4 * GIB // 4096
    assert normal.managed > 0
    assert state.lowmem_reserve[ZoneId.DMA32 * NR_ZONES + ZoneId.MOVABLE] == normal.managed // 256
    assert len(state.pcp) == NR_ZONES
