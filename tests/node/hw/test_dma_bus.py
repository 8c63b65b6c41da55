"""The bus: three ways of using it, clock by clock; and the queue of a device."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.counters import Current
from node.hw.dma import DmaDirection, setup_device
from node.hw.dma_spec import DeviceSpec
from node.state import State
from tests.models.dma import walk_bus
from tests.node.phys.dma_entries import (
    do_longest_stop,
    do_move_block,
    do_queue_transfer,
    do_stolen_cycles,
    do_transfer_cycles,
)

pytestmark = pytest.mark.three_ways

BUSES = ("burst", "stealing", "transparent")


def machine_with(**figures: int | str) -> State:
    lengths = dict.fromkeys(State.LAYOUT, 1) | {"panic": 4, "current": Current.NR}
    state = State(**lengths)
    setup_device(state, 0, DeviceSpec(name="d", **figures))  # type: ignore[arg-type]
    return state


@given(
    bus=st.sampled_from(BUSES),
    nr_words=st.integers(1, 300),
    cycles=st.integers(1, 9),
    arbitration=st.integers(0, 9),
    free_percent=st.integers(1, 100),
)
def test_a_block_costs_what_walking_the_bus_costs(
    bus: str, nr_words: int, cycles: int, arbitration: int, free_percent: int
) -> None:
    state = machine_with(
        bus=bus, cycles_per_word=cycles, arbitration_cycles=arbitration, cpu_free_percent=free_percent
    )
    found = (
        do_transfer_cycles(state, 0, nr_words),
        do_stolen_cycles(state, 0, nr_words),
        do_longest_stop(state, 0, nr_words),
    )
    assert found == walk_bus(bus, nr_words, cycles, arbitration, free_percent)


def test_one_page_by_hand() -> None:
    # 4096 bytes at 4 clocks each; 4 clocks for HLDA, 4 of the CPU between two words, a quarter of cycles free.
    found = {}
    for bus in BUSES:
        state = machine_with(bus=bus)
        found[bus] = (do_transfer_cycles(state, 0, 4096), do_stolen_cycles(state, 0, 4096))
    assert found == {"burst": (16_388, 16_388), "stealing": (49_152, 32_768), "transparent": (65_536, 0)}


def test_memory_to_memory_uses_the_bus_twice_a_word() -> None:
    state = machine_with(word_bytes=2, arbitration_cycles=0)
    assert do_move_block(state, 0, 1, DmaDirection.TO_DEVICE) == 2048 * 4
    assert do_move_block(state, 0, 1, DmaDirection.MEMORY_TO_MEMORY) == 2 * 2048 * 4
    device = state.dma_device[0]
    assert (device.nr_segments, device.nr_bytes) == (2, 8192)


@given(requests=st.lists(st.tuples(st.integers(0, 5_000_000), st.integers(1, 40)), min_size=1, max_size=30))
def test_transfers_are_served_one_at_a_time_in_the_order_of_issue(requests: list[tuple[int, int]]) -> None:
    state = machine_with(clock_mhz=5)
    now = behind = waited = 0
    for wait, nr_cycles in requests:
        now += wait
        state.current[Current.CLOCK_PS] = now
        begin = max(now, behind)
        waited += begin - now
        behind = begin + nr_cycles * 200_000
        assert do_queue_transfer(state, 0, nr_cycles) == behind
    device = state.dma_device[0]
    assert (device.nr_transfers, device.wait_ps) == (len(requests), waited)
    assert device.bus_cycles == sum(nr_cycles for _, nr_cycles in requests)
