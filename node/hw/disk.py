"""A block device: a request waits for a place in the device, then for its latency, then for the bus.

    issued      place free        latency over         bus free            done
       |--- wait ---|--- latency ----|------ wait -------|---- transfer ----|
                    |<---------------- holds its place -------------------->|

``queue_depth`` places work side by side: the channels of a flash device, the one arm of a disk. The bus
between device and memory carries one request at a time, in the order of issue, so requests complete in that
order too. A disk whose arm is at the page asked for (the one behind the last request's) pays no latency.

The depth of a preset is what the maker's random-read rate needs at the maker's latency (rate x latency), so
that a full queue gives that rate and a single request that latency.

# Differs from Linux: no I/O scheduler sorts, merges or prefers reads; a disk's seek time is the average one,
whatever the distance, and it has no cache for writes.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from node.counters import Current
from shared.constants import NS_PER_S, PAGE_SIZE, PS_PER_NS
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

DISK = np.dtype(
    [
        ("read_latency_ps", np.int64),  # of one request, besides its transfer
        ("write_latency_ps", np.int64),
        ("page_read_ps", np.int64),  # transfer of 4 KiB at the device's bandwidth
        ("page_write_ps", np.int64),
        ("rotational", np.int64),  # 1: a request behind the last one pays no latency
        ("next_page", np.int64),  # page behind the last request: where the arm is
        ("queue_depth", np.int64),
        ("nr_requests", np.int64),  # writes that the block layer holds before their issuer must wait
        ("transfer_free_ps", np.int64),  # when the bus between device and memory is free
        ("nr_reads", np.int64),  # pages
        ("nr_writes", np.int64),
        ("busy_ps", np.int64),  # time for which the bus was in use
        ("epoch_requests", np.int64),  # reads since the last epoch border, and their summed service time
        ("epoch_service_ps", np.int64),
    ],
    align=True,
)


@dataclass(frozen=True, slots=True)
class DiskPreset:
    """A device by its maker's figures."""

    rotational: bool
    read_latency_ns: int
    write_latency_ns: int
    read_bytes_per_s: int
    write_bytes_per_s: int
    queue_depth: int  # requests served side by side
    nr_requests: int  # of the block layer: /sys/block/*/queue/nr_requests
    source: str


MB: Final = 1_000_000
DISK_PRESETS: Final = {
    "hdd": DiskPreset(
        rotational=True,
        read_latency_ns=7_400_000 + 4_160_000,
        write_latency_ns=8_200_000 + 4_160_000,
        read_bytes_per_s=255 * MB,
        write_bytes_per_s=255 * MB,
        queue_depth=1,
        nr_requests=64,
        source="Western Digital Ultrastar DC HC310 (7200 rpm, SATA), OEM specification 4.5.1: average seek "
        "7.4 ms (read), 8.2 ms (write), average rotational latency 4.16 ms; data sheet: 255 MB/s sustained. "
        "nr_requests: twice the 32 tags of SATA (Linux block/blk-mq-sched.c)",
    ),
    "ssd": DiskPreset(
        rotational=False,
        read_latency_ns=77_000,
        write_latency_ns=28_000,
        read_bytes_per_s=560 * MB,
        write_bytes_per_s=530 * MB,
        queue_depth=8,
        nr_requests=64,
        source="Samsung 870 EVO (SATA), data sheet: 4 KiB random read 13,000/s and write 36,000/s at depth 1 "
        "(77 us, 28 us), random read 98,000/s at depth 32 (x 77 us = 8 places), sequential 560 and 530 MB/s. "
        "nr_requests: as hdd",
    ),
    "nvme": DiskPreset(
        rotational=False,
        read_latency_ns=85_000,
        write_latency_ns=20_000,
        read_bytes_per_s=3_200 * MB,
        write_bytes_per_s=1_050 * MB,
        queue_depth=42,
        nr_requests=1_023,
        source="Intel SSD DC P4500 2 TB (NVMe), in Lenovo's product guide: random latency 85 us (read) "
        "and 20 us (write), random read 490,000/s (x 85 us = 42 places), sequential 3.2 and 1.05 GB/s. "
        "nr_requests: the driver's queue of 1024, less one (Linux drivers/nvme/host/pci.c)",
    ),
}


def setup_disk(state: "State", preset: DiskPreset) -> None:
    """Make the machine's device that of ``preset``: ``state.disk_queue`` has its ``queue_depth`` places."""
    disk = state.disk[0]
    disk.rotational = preset.rotational
    disk.read_latency_ps = preset.read_latency_ns * PS_PER_NS
    disk.write_latency_ps = preset.write_latency_ns * PS_PER_NS
    disk.page_read_ps = PAGE_SIZE * NS_PER_S * PS_PER_NS // preset.read_bytes_per_s
    disk.page_write_ps = PAGE_SIZE * NS_PER_S * PS_PER_NS // preset.write_bytes_per_s
    disk.queue_depth = preset.queue_depth
    disk.nr_requests = preset.nr_requests


@kernel
def _earliest_place(state: "State") -> int:
    """Return the place that is free first; of equal ones the lowest."""
    best = 0
    for place in range(1, state.disk[0].queue_depth):
        if state.disk_queue[place] < state.disk_queue[best]:
            best = place
    return best


@kernel
def disk_io(state: "State", first_page: int, nr_pages: int, write: int) -> int:
    """Issue one request for ``nr_pages`` device pages at the current clock; return when it is done, in ps.

    Nobody waits here: the caller does, or not.
    """
    disk = state.disk[0]
    now = state.current[Current.CLOCK_PS]
    latency_ps = disk.write_latency_ps if write else disk.read_latency_ps
    if disk.rotational and first_page == disk.next_page:
        latency_ps = 0
    transfer_ps = nr_pages * (disk.page_write_ps if write else disk.page_read_ps)
    place = _earliest_place(state)
    ready_ps = max(now, state.disk_queue[place]) + latency_ps
    done_ps = max(ready_ps, disk.transfer_free_ps) + transfer_ps
    state.disk_queue[place] = done_ps
    disk.transfer_free_ps = done_ps
    disk.next_page = first_page + nr_pages
    disk.busy_ps += transfer_ps
    if write:
        disk.nr_writes += nr_pages
    else:
        disk.nr_reads += nr_pages
        disk.epoch_requests += 1
        disk.epoch_service_ps += done_ps - now
    return done_ps


@kernel
def mean_service_ps(state: "State") -> int:
    """Return the mean time that a read took since the last epoch border, queueing included.

    Of an idle device: what a single read of one page takes.
    """
    disk = state.disk[0]
    if disk.epoch_requests == 0:
        return disk.read_latency_ps + disk.page_read_ps
    return disk.epoch_service_ps // disk.epoch_requests


@kernel
def begin_epoch_of_disk(state: "State") -> None:
    """Start the statistics of ``mean_service_ps`` anew."""
    disk = state.disk[0]
    disk.epoch_requests = 0
    disk.epoch_service_ps = 0
