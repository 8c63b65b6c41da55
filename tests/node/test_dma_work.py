"""The workload ``dma``: what a transfer takes, whose time that is, and that the right data arrives."""

import re
from typing import Any

import pytest

from node.dma_setup import setup_devices
from node.dma_work import RequestStage
from node.hw.dma_spec import DeviceSpec
from node.invariants import check
from node.machine import Machine
from node.phys.page import PageFlag
from node.spec import MachineSpec, WorkSpec
from shared.constants import MIB, PAGE_SIZE, PS_PER_MS
from tests.models.dma import walk_bus

pytestmark = pytest.mark.three_ways

PAGES = 4
END_NS = 2_000_000_000


def machine(figures: dict[str, Any] | None = None, *, cpus: int = 1, **work: Any) -> Machine:
    """Return a machine whose processes, one a CPU, each make three transfers of PAGES pages."""
    works = tuple(
        WorkSpec("dma", **{"memory_bytes": PAGES * PAGE_SIZE, "operations": 3, "cpu": cpu} | work)
        for cpu in range(cpus)
    )
    spec = MachineSpec(
        memory_bytes=64 * MIB, cpus=cpus, devices=(DeviceSpec("d", **figures or {}),), works=works
    )
    return Machine(spec)


def run(made: Machine, to_ns: int = END_NS) -> dict[str, int]:
    made.run_until(to_ns)
    check(made.state)
    return made.counters()


def frames(made: Machine) -> list[int]:
    return [int(pfn) for pfn in made.state.dma_frame[:]]


@pytest.mark.parametrize("bus", ["burst", "stealing", "transparent"])
@pytest.mark.parametrize("think_ms", [0, 2, 100])
def test_an_operation_takes_the_longer_of_transfer_and_slowed_work(bus: str, think_ms: int) -> None:
    made = machine({"bus": bus, "max_segment_bytes": PAGE_SIZE}, think_ns=think_ms * 1_000_000, operations=1)
    made.run_until(END_NS)
    state = made.state
    device = state.dma_device[0]
    assert made.finished
    blocks = device.nr_segments
    taken, stolen, longest = walk_bus(bus, PAGE_SIZE, 4, 4, 25)
    assert (device.bus_cycles, device.stolen_cycles) == (blocks * taken, blocks * stolen)
    assert device.longest_stop == longest
    work_ps = think_ms * PS_PER_MS + device.stolen_cycles * device.cycle_ps
    transfer_ps = device.bus_cycles * device.cycle_ps
    assert state.cpu[0].stall_ps == max(transfer_ps - work_ps, 0)


def test_a_transfer_ends_with_an_interrupt() -> None:
    made = machine()
    counters = run(made)
    assert counters["device_interrupt"] == counters["dma_transfers"] == 3
    assert counters["syscall"] == 3


def test_devices_use_no_tlb() -> None:
    counters = run(machine(direction="bidirectional"))
    assert counters["memory_access"] == 0
    assert counters["dma_bytes"] == 3 * PAGES * PAGE_SIZE


def test_what_the_device_writes_is_new_each_time() -> None:
    made = machine(direction="from_device")
    run(made)
    contents = made.state.page["content"][frames(made)].tolist()
    assert len(set(contents)) == PAGES
    assert made.state.dma_device[0].nr_written == 3 * PAGES


def test_the_device_reads_the_same_through_bounce_buffers() -> None:
    seen = {}
    for bits in (24, 64):
        made = machine({"address_bits": bits}, direction="to_device")
        counters = run(made)
        assert (counters["dma_bounced_bytes"] > 0) == (bits == 24)
        seen[bits] = made.state.dma_device[0].checksum
    assert seen[24] == seen[64] != 0


def test_a_buffer_within_reach_is_never_copied() -> None:
    counters = run(machine({"address_bits": 24}, coherent=True))
    assert counters["dma_bounced_bytes"] == 0
    assert counters["operations"] == 3


def test_memory_is_copied_to_memory() -> None:
    made = machine({"address_bits": 24}, direction="memory_to_memory")
    counters = run(made)
    contents = made.state.page["content"][frames(made)].tolist()
    assert contents[:PAGES] == contents[PAGES:]
    assert len(set(contents)) == PAGES
    # Both buffers are out of reach: source and target are copied when mapped, the target when unmapped too.
    assert counters["dma_bounced_bytes"] == 3 * 3 * PAGES * PAGE_SIZE


def test_a_list_of_too_many_segments_is_several_transfers() -> None:
    counters = run(machine({"max_segments": 1, "max_segment_bytes": PAGE_SIZE}))
    assert counters["dma_transfers"] == counters["dma_segments"] == 3 * PAGES
    assert counters["operations"] == 3


def test_two_processes_wait_for_one_device() -> None:
    made = machine(cpus=2, operations=4)
    counters = run(made)
    assert counters["operations"] == 8
    assert counters["dma_wait_ps"] > 0
    assert made.finished


def test_without_bounce_buffers_operations_are_errors_and_end() -> None:
    made = machine({"address_bits": 24})
    pool = made.state.bounce_pool[0]
    pool.nr_used = pool.nr_slots  # as if others held them all
    made.run_until(END_NS)
    counters = made.counters()
    assert (counters["dma_errors"], counters["swiotlb_full"], counters["dma_transfers"]) == (3, 3, 0)
    assert counters["operations"] == 3
    assert made.finished


def test_a_transfer_under_way_survives_a_checkpoint() -> None:
    straight, stopped = machine({"address_bits": 24}), machine({"address_bits": 24})
    half_ns = 4_000_000
    for made in (straight, stopped):
        made.run_until(half_ns)
        assert made.state.dma_request[0].stage == RequestStage.UNDER_WAY
        check(made.state)
    copy = machine({"address_bits": 24})
    copy.restore(stopped.snapshot())
    for made in (straight, copy):
        made.run_until(END_NS)
    assert straight.digest() == copy.digest()


def test_counters_are_by_device_and_in_all() -> None:
    devices = (DeviceSpec("a"), DeviceSpec("b", bus="stealing"))
    works = tuple(
        WorkSpec("dma", memory_bytes=PAGE_SIZE, operations=index + 1, device=index) for index in range(2)
    )
    counters = run(Machine(MachineSpec(memory_bytes=64 * MIB, devices=devices, works=works)))
    assert (counters["dma.a.transfers"], counters["dma.b.transfers"]) == (1, 2)
    assert counters["dma_transfers"] == 3
    assert counters["dma_longest_stop"] == counters["dma.a.longest_stop"]
    assert not any(name.startswith("dma") for name in Machine(MachineSpec(memory_bytes=64 * MIB)).counters())


# --- bad input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("figures", "work", "message"),
    [
        ({"address_bits": 20}, {}, "devices.0.address_bits: 20 is none of 24, 32, 64"),
        ({"max_segments": 0}, {}, "devices.0.max_segments: 0 is outside 1..128"),
        ({"max_segment_bytes": 1 << 20}, {}, "devices.0.max_segment: 1048576 bytes is not a whole number of"),
        ({}, {"memory_bytes": 0}, "processes.0.memory: 0 bytes is not a whole number of pages, at least 1"),
        ({}, {"device": 1}, "processes.0.device: 1, but there are 1"),
        (
            {},
            {"memory_bytes": 8 * MIB, "coherent": True},
            "processes.0.memory: 8388608 bytes is more than one",
        ),
        (
            {"address_bits": 24},
            {"memory_bytes": 4 * MIB, "coherent": True, "direction": "memory_to_memory", "cpus": 2},
            "processes.1.memory: no 4194304 bytes in reach of 24 address bits for the buffer",
        ),
        ({}, {"memory_bytes": 128 * MIB}, "processes.0.memory: no 134217728 bytes for the buffer"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    figures: dict[str, Any], work: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}") as caught:
        machine(figures, **work)
    assert "\n" not in str(caught.value)


def test_a_device_that_reaches_no_memory_is_refused() -> None:
    made = machine()
    made.state.page["page_flags"][: 16 * MIB // PAGE_SIZE] = PageFlag.RESERVED
    spec = MachineSpec(memory_bytes=64 * MIB, devices=(DeviceSpec("d", 24),))
    with pytest.raises(
        ValueError, match=r"^devices.0.address_bits: 24, but the machine has no frames in zone DMA"
    ):
        setup_devices(made.state, spec)
