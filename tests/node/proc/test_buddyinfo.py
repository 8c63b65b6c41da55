"""/proc/buddyinfo, beside lines of a real kernel."""

from node.machine import Machine
from node.proc.buddyinfo import buddy_line
from node.proc.zones import populated_zones
from node.spec import MachineSpec
from shared.constants import MIB
from tests.node.proc.golden_zones import DMA, DMA32


def test_lines_are_those_of_a_real_kernel() -> None:
    assert buddy_line(DMA) == (
        "Node 0, zone      DMA      0      0      0      0      0      1      1      1      0      1      3 \n"
    )
    assert buddy_line(DMA32) == (
        "Node 0, zone    DMA32      3      1      2      2      9      5      3      4      7      4     97 \n"
    )


def test_all_free_frames_of_a_machine_are_in_it() -> None:
    machine = Machine(MachineSpec(memory_bytes=64 * MIB))
    lines = machine.proc("/proc/buddyinfo").splitlines()
    zones = populated_zones(machine.state)
    assert [line[:22] for line in lines] == [f"Node {zone.node}, zone {zone.name:>8} " for zone in zones]
    for line, zone in zip(lines, zones, strict=True):
        counts = [int(word) for word in line.split()[4:]]
        assert sum(count << order for order, count in enumerate(counts)) == zone.free
