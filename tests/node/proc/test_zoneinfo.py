"""/proc/zoneinfo: its form, with the numbers of a real kernel's zones."""

import pytest

from node.machine import Machine
from node.proc.stats import NODE_ITEMS, ZONE_ITEMS, zone_items
from node.proc.zoneinfo import stat_threshold, zone_text
from node.proc.zones import LruPages
from node.spec import MachineSpec
from shared.constants import MIB
from tests.node.proc.golden_zones import DMA32, NORMAL

PROGRAM = "spawn A\nA: mmap h 4M\nA: write h\nsnapshot written\n"
DMA32_TEXT = """\
Node 0, zone    DMA32
  pages free     104205
        boost    0
        min      658
        low      822
        high     986
        spanned  126941
        present  126941
        managed  113261
        cma      0
        protection: (0, 0, 0, 0, 0)
      nr_free_pages 104205
      nr_zone_inactive_anon 101
      nr_zone_active_anon 1
      nr_zone_inactive_file 0
      nr_zone_active_file 0
      nr_zone_unevictable 0
      nr_zone_write_pending 0
      nr_mlock     0
      nr_bounce    0
      nr_zspages   0
      nr_free_cma  0
      numa_hit     0
      numa_miss    0
      numa_foreign 0
      numa_interleave 0
      numa_local   0
      numa_other   0
  pagesets
    cpu: 0
              count: 5
              high:  822
              batch: 31
  vm stats threshold: 6
  node_unreclaimable:  0
  start_pfn:           4096
"""
NORMAL_TEXT = """\
Node 0, zone   Normal
  pages free     0
        boost    0
        min      0
        low      0
        high     0
        spanned  0
        present  0
        managed  0
        cma      0
        protection: (0, 0, 0, 0, 0)
"""


def test_a_zone_is_printed_in_linux_s_form() -> None:
    assert zone_text(DMA32, zone_items(DMA32, LruPages(101, 1)), None) == DMA32_TEXT


def test_a_zone_without_frames_ends_after_its_protection() -> None:
    assert zone_text(NORMAL, {}, None) == NORMAL_TEXT


def test_a_node_s_items_stand_before_its_first_zone() -> None:
    text = zone_text(DMA32, {}, {"nr_dirty": 4, "nr_inactive_anon": 113})
    assert text.startswith(
        "Node 0, zone    DMA32\n  per-node stats\n      nr_dirty     4\n      nr_inactive_anon 113\n  pages free "
    )


# mm/vmstat.c (calculate_normal_threshold) lists these in its comment.
@pytest.mark.parametrize(
    ("threshold", "nr_cpus", "memory_mib"),
    [(8, 1, 900), (16, 2, 900), (24, 2, 2048), (4, 2, 100), (48, 4, 8192), (125, 1024, 8192)],
)
def test_thresholds_are_those_that_linux_documents(threshold: int, nr_cpus: int, memory_mib: int) -> None:
    assert stat_threshold(nr_cpus, memory_mib * MIB // 4096) == threshold


def test_a_machine_prints_all_its_zones_and_the_items_once() -> None:
    machine = Machine(MachineSpec(memory_bytes=64 * MIB, cpus=2))
    text = machine.proc("/proc/zoneinfo")
    names = [line.split()[-1] for line in text.splitlines() if line.startswith("Node ")]
    assert names == ["DMA", "DMA32", "Normal", "Movable", "Device"]
    for name in NODE_ITEMS:
        assert text.count(f"\n      {name:<12} ") == 1
    assert all(text.count(f"\n      {name:<12} ") == 2 for name in ZONE_ITEMS)
    assert text.count("\n    cpu: 1\n") == 2


def test_each_node_has_all_zones_and_its_own_items() -> None:
    spec = {"kind": "machine", "memory_bytes": 256 * MIB, "cpus": 2, "numa": {"nodes": 2}}
    machine = Machine(MachineSpec.from_dict(spec))
    machine.run_program(PROGRAM)
    text = machine.proc("/proc/zoneinfo")
    heads = [line for line in text.splitlines() if line.startswith("Node ")]
    assert [head.split(",")[0] for head in heads] == ["Node 0"] * 5 + ["Node 1"] * 5
    assert text.count("\n  per-node stats\n") == 2
    items = [int(line.split()[1]) for line in text.splitlines() if line.startswith("      nr_inactive_anon ")]
    assert sum(items) == machine.counters()["nr_inactive_anon"] >= 4 * MIB // 4096


def test_a_32_bit_kernel_has_its_own_zones() -> None:
    spec = {"kind": "machine", "memory_bytes": 1024 * MIB, "hw": {"paging": "32bit"}}
    machine = Machine(MachineSpec.from_dict(spec))
    text = machine.proc("/proc/zoneinfo")
    names = [line.split()[-1] for line in text.splitlines() if line.startswith("Node ")]
    assert names == ["DMA", "Normal", "HighMem", "Movable"]
    lines = machine.proc("/proc/meminfo").splitlines()
    assert [line.split(":")[0] for line in lines[14:18]] == ["HighTotal", "HighFree", "LowTotal", "LowFree"]
    assert "Hugepagesize:       4096 kB" in lines
    assert "pgalloc_high " in machine.proc("/proc/vmstat")
    assert "dma32" not in machine.proc("/proc/vmstat")
