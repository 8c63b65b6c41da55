"""/proc/vmstat: every name of a real kernel, in its order, and the machine's own counters."""

from node import procfs
from node.machine import Machine
from node.proc.vmstat import EVENTS
from node.spec import MachineSpec
from shared.constants import MIB

# Names that a recorded kernel showed with a value, in the order in which mm/vmstat.c prints them.
SEEN = (
    "nr_free_pages nr_zone_inactive_anon nr_zone_active_anon nr_zone_inactive_file nr_zone_active_file"
    " nr_zone_unevictable nr_zone_write_pending nr_mlock nr_zspages numa_hit numa_interleave numa_local"
    " nr_inactive_anon nr_active_anon nr_inactive_file nr_active_file nr_unevictable nr_slab_reclaimable"
    " nr_slab_unreclaimable nr_anon_pages nr_mapped nr_file_pages nr_dirty nr_shmem"
    " nr_anon_transparent_hugepages nr_dirtied nr_written nr_kernel_stack nr_page_table_pages nr_swapcached"
    " nr_dirty_threshold nr_dirty_background_threshold pgpgin pgpgout pgalloc_dma pgalloc_dma32 pgfree pgactivate"
    " pgdeactivate pgfault pgreuse slabs_scanned pgrotated drop_pagecache drop_slab unevictable_pgs_culled"
    " unevictable_pgs_mlocked direct_map_level2_splits"
)
# What we count under names that no kernel prints there.
OURS = {
    "nr_kernel_pages",
    "nr_committed",  # Committed_AS of /proc/meminfo
    "nr_swap_used",
    "nr_vmalloc",
    "nr_isolated",
    "mm_page_alloc_extfrag",
    "mm_page_alloc_zone_locked",
    "mm_page_pcpu_drain",
    "alloc_failed",
    "pgalloc_high",  # of other kernels' zones
    "allocstall_high",
    "rmap_walk",  # a tracepoint would tell
    "rmap_area",
}


def test_names_are_a_real_kernel_s_in_its_order() -> None:
    names = [line.split()[0] for line in _lines()]
    assert [name for name in names if name in SEEN.split()] == SEEN.split()
    assert len(set(names)) == len(names)


def test_every_counter_of_a_machine_that_linux_has_is_shown() -> None:
    machine = Machine(MachineSpec(memory_bytes=64 * MIB))
    machine.run_program("spawn A\nA: mmap h 1M\nA: write h\nsnapshot written\n")
    shown = dict(line.split() for line in machine.proc("/proc/vmstat").splitlines())
    counted = procfs.vmstat(machine.state)
    missing = set(counted) - set(shown)
    assert missing <= OURS
    assert {name: int(shown[name]) for name in set(counted) & set(shown)} == {
        name: value for name, value in counted.items() if name in shown
    }
    assert int(shown["pgfault"]) >= 256


def test_no_event_is_listed_twice() -> None:
    assert len(set(EVENTS)) == len(EVENTS)


def _lines() -> list[str]:
    return Machine(MachineSpec(memory_bytes=64 * MIB)).proc("/proc/vmstat").splitlines()
