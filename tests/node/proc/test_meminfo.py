"""/proc/meminfo: the lines of a real kernel, in its order, and what can be worked out by hand."""

import re

from node.machine import Machine
from node.proc.meminfo import available_pages
from node.spec import MachineSpec, SwapSpec
from shared.constants import MIB
from tests.node.proc.golden_zones import DMA, DMA32

# Of Debian's 6.1.0-56-amd64 on a processor without 1 GiB pages.
LINES = (
    "MemTotal MemFree MemAvailable Buffers Cached SwapCached Active Inactive Active(anon) Inactive(anon)"
    " Active(file) Inactive(file) Unevictable Mlocked SwapTotal SwapFree Zswap Zswapped Dirty Writeback AnonPages"
    " Mapped Shmem KReclaimable Slab SReclaimable SUnreclaim KernelStack PageTables SecPageTables NFS_Unstable"
    " Bounce WritebackTmp CommitLimit Committed_AS VmallocTotal VmallocUsed VmallocChunk Percpu"
    " HardwareCorrupted AnonHugePages ShmemHugePages ShmemPmdMapped FileHugePages FilePmdMapped"
    " HugePages_Total HugePages_Free HugePages_Rsvd HugePages_Surp Hugepagesize Hugetlb DirectMap4k DirectMap2M"
)
LINE = re.compile(r"(?P<name>[A-Za-z0-9_()]+): +(?P<value>[0-9]+)(?: kB)?")
PROGRAM = "spawn A\nA: mmap h 4M\nA: write h\nsnapshot written\n"


def values_of(machine: Machine) -> dict[str, int]:
    found = {}
    for line in machine.proc("/proc/meminfo").splitlines():
        match = LINE.fullmatch(line)
        assert match is not None, line
        found[match["name"]] = int(match["value"])
    return found


def test_the_lines_are_a_real_kernel_s_in_its_order() -> None:
    names = list(values_of(Machine(MachineSpec(memory_bytes=64 * MIB))))
    assert [name for name in names if name != "DirectMap1G"] == LINES.split()


def test_lines_have_linux_s_columns() -> None:
    lines = Machine(MachineSpec(memory_bytes=64 * MIB)).proc("/proc/meminfo").splitlines()
    assert "Buffers:               0 kB" in lines
    assert "Active(file):          0 kB" in lines
    assert "VmallocTotal:   34359738367 kB" in lines
    assert "HardwareCorrupted:     0 kB" in lines
    assert "HugePages_Total:       0" in lines
    assert "Hugepagesize:       2048 kB" in lines


def test_available_memory_is_what_the_recorded_kernel_said() -> None:
    # 432,052 kB free and 9,800 kB of reclaimable slab; it had 36 kB more, half of its page cache.
    assert available_pages(432052 // 4, 9800 // 4, [DMA, DMA32]) * 4 == 432652 - 36


def test_memory_of_processes_swap_and_the_direct_map_is_in_it() -> None:
    swap = SwapSpec(size_bytes=16 * MIB)
    machine = Machine(MachineSpec(memory_bytes=64 * MIB, swap=swap))
    before = values_of(machine)
    machine.run_program(PROGRAM)
    after = values_of(machine)
    assert after["AnonPages"] - before["AnonPages"] >= 4096
    assert after["MemFree"] < before["MemFree"]
    assert after["Active(anon)"] + after["Inactive(anon)"] == after["Active"] + after["Inactive"]
    assert after["Committed_AS"] - before["Committed_AS"] >= 4096
    assert after["SwapTotal"] == after["SwapFree"] == 16 * 1024 - 4
    assert after["CommitLimit"] == after["MemTotal"] // 4 // 2 * 4 + after["SwapTotal"]
    assert after["DirectMap4k"] + after["DirectMap2M"] == 64 * 1024
