"""/proc/pagetypeinfo, beside a real kernel's."""

import re

from node.machine import Machine
from node.proc.pagetypeinfo import MOST_COUNTED, free_line
from node.proc.zones import MIGRATE_TYPE_NAMES, populated_zones
from node.spec import MachineSpec
from shared.constants import MIB
from tests.node.proc.golden_zones import DMA, DMA32

HEAD = (
    "Page block order: 9\n"
    "Pages per block:  512\n"
    "\n"
    "Free pages count per migrate type at order "
    "      0      1      2      3      4      5      6      7      8      9     10 \n"
)
BLOCKS = "Number of blocks type     Unmovable      Movable  Reclaimable   HighAtomic      Isolate "
BLOCK_LINE = re.compile(r"Node 0, zone {3,}[A-Za-z0-9]+( {1,12}\d+){5} ")


def test_lines_are_those_of_a_real_kernel() -> None:
    assert free_line(DMA, "Unmovable", (0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0)) == (
        "Node    0, zone      DMA, type    Unmovable      0      0      0      0      0      1      1      1      0"
        "      0      0 "
    )
    assert free_line(DMA32, "Movable", (1, 1, 1, 1, 0, 0, 1, 1, 5, 2, 97)) == (
        "Node    0, zone    DMA32, type      Movable      1      1      1      1      0      0      1      1      5"
        "      2     97 "
    )
    assert free_line(DMA32, "HighAtomic", (0,) * 11) == (
        "Node    0, zone    DMA32, type   HighAtomic      0      0      0      0      0      0      0      0      0"
        "      0      0 "
    )


def test_a_list_that_linux_would_stop_counting_is_marked() -> None:
    assert free_line(DMA, "Movable", (1, MOST_COUNTED, 1)).endswith("      1 >100000      1 ")


def test_the_parts_stand_in_order_and_add_up() -> None:
    machine = Machine(MachineSpec(memory_bytes=64 * MIB))
    machine.run_program("spawn A\nA: mmap h 3M\nA: write h\nsnapshot written\n")
    text = machine.proc("/proc/pagetypeinfo")
    assert text.startswith(HEAD)
    lines = text.removeprefix(HEAD).splitlines()
    zones = populated_zones(machine.state)
    nr_free_lines = len(zones) * len(MIGRATE_TYPE_NAMES)
    assert lines[nr_free_lines : nr_free_lines + 2] == ["", BLOCKS]
    block_lines = lines[nr_free_lines + 2 :]
    assert all(BLOCK_LINE.fullmatch(line) for line in block_lines)
    assert len(block_lines) == len(zones)
    for index, zone in enumerate(zones):
        of_zone = lines[index * len(MIGRATE_TYPE_NAMES) : (index + 1) * len(MIGRATE_TYPE_NAMES)]
        counts = [[int(word) for word in line.split()[6:]] for line in of_zone]
        assert [sum(of_order) for of_order in zip(*counts, strict=True)] == list(zone.free_blocks)
        assert sum(count << order for order, count in enumerate(zone.free_blocks)) == zone.free
