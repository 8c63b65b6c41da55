"""The RAM map: the hole below 4 GiB, nodes that share the memory, and device memory at the end."""

import pytest

from node.kmap.ram_map import nid_of_cpu, ram_map
from shared.constants import GIB, MIB, PAGE_SIZE


def pages(size: int) -> int:
    return size // PAGE_SIZE


def test_a_small_machine_is_one_range() -> None:
    ram = ram_map(pages(512 * MIB), has_hole=True)
    assert (ram.ram, ram.nodes, ram.holes) == (((0, 131_072),), ((0, 131_072),), ())


@pytest.mark.parametrize(
    ("size", "low", "top"),
    [
        (4 * GIB, 3 * GIB, 5 * GIB),
        (3 * GIB + 512 * MIB, 3 * GIB, 4 * GIB + 512 * MIB),
        (64 * GIB, 3 * GIB, 65 * GIB),
    ],
)
def test_from_3_5_gib_on_there_is_a_hole_from_3_to_4(size: int, low: int, top: int) -> None:
    ram = ram_map(pages(size), has_hole=True)
    assert ram.ram == ((0, pages(low)), (pages(4 * GIB), pages(top)))
    assert ram.holes == ((pages(3 * GIB), pages(4 * GIB)),)
    assert sum(behind - first for first, behind in ram.ram) == pages(size)


@pytest.mark.parametrize("nr_nodes", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [512 * MIB, 8 * GIB])
def test_nodes_share_the_ram_evenly_and_leave_no_gap(nr_nodes: int, size: int) -> None:
    ram = ram_map(pages(size), has_hole=True, nr_nodes=nr_nodes)
    assert ram.nodes[0][0] == 0
    assert all(one[1] == other[0] for one, other in zip(ram.nodes, ram.nodes[1:], strict=False))
    shares = [sum(behind - first for first, behind in ram.ram_of(nid)) for nid in range(nr_nodes)]
    assert sum(shares) == pages(size)
    assert max(shares) - min(shares) <= 2 * 512


def test_device_memory_lies_behind_the_ram() -> None:
    ram = ram_map(pages(256 * MIB) + 3, has_hole=True, device_pages=1024)
    assert ram.device == (66_048, 67_072)
    assert ram.nr_frames == 67_072


def test_more_nodes_than_pageblocks_are_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"^numa\.nodes: [^\n]*$"):
        ram_map(1024, has_hole=False, nr_nodes=3)


def test_cpus_are_shared_by_the_nodes() -> None:
    assert [nid_of_cpu(cpu, 8, 4) for cpu in range(8)] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [nid_of_cpu(cpu, 3, 2) for cpu in range(3)] == [0, 0, 1]
