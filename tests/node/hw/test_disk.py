"""The block device: places, latency, bus, and what its makers promise."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.counters import Current
from node.hw.disk import DISK_PRESETS, DiskPreset, setup_disk
from node.state import State
from shared.constants import NS_PER_MS, PAGE_SIZE, PS_PER_NS, PS_PER_S
from tests.models.disk import DiskModel
from tests.node.hw.disk_entries import do_begin_epoch, do_disk_io, do_mean_service_ps

pytestmark = pytest.mark.three_ways

TINY = DiskPreset(
    rotational=True,
    read_latency_ns=1_000,
    write_latency_ns=700,
    read_bytes_per_s=40_960_000_000,
    write_bytes_per_s=20_480_000_000,
    queue_depth=2,
    nr_requests=4,
    source="made up",
)
REQUESTS = st.lists(
    st.tuples(
        st.integers(0, 1_500_000),  # ps since the last one
        st.integers(0, 5),  # first page
        st.integers(1, 3),
        st.booleans(),
    ),
    min_size=1,
    max_size=40,
)


def machine_with(preset: DiskPreset) -> State:
    lengths = dict.fromkeys(State.LAYOUT, 1) | {
        "panic": 4,
        "current": Current.NR,
        "disk_queue": preset.queue_depth,
    }
    state = State(**lengths)
    setup_disk(state, preset)
    return state


@pytest.mark.parametrize("preset", [TINY, DISK_PRESETS["ssd"]], ids=["tiny", "ssd"])
@given(requests=REQUESTS)
def test_requests_complete_as_in_an_event_list(
    preset: DiskPreset, requests: list[tuple[int, int, int, bool]]
) -> None:
    state = machine_with(preset)
    model = DiskModel(preset)
    now = 0
    for wait, page, nr_pages, write in requests:
        now += wait
        state.current[Current.CLOCK_PS] = now
        assert do_disk_io(state, page, nr_pages, write) == model.request(now, page, nr_pages, write)
    disk = state.disk[0]
    reads = [old for old in model.served if not old.write]
    assert disk.epoch_requests == len(reads)
    assert disk.busy_ps == sum(old.done - old.on_bus for old in model.served)
    assert disk.nr_reads + disk.nr_writes == sum(nr_pages for _, _, nr_pages, _ in requests)
    if reads:
        assert do_mean_service_ps(state) == model.mean_read_ps()


@given(requests=REQUESTS)
def test_requests_complete_in_the_order_of_issue(requests: list[tuple[int, int, int, bool]]) -> None:
    state = machine_with(TINY)
    done = []
    for wait, page, nr_pages, write in requests:
        state.current[Current.CLOCK_PS] += wait
        done.append(do_disk_io(state, page, nr_pages, write))
    assert done == sorted(done)


@pytest.mark.parametrize("name", DISK_PRESETS)
def test_a_single_request_takes_its_latency_and_its_transfer(name: str) -> None:
    preset = DISK_PRESETS[name]
    state = machine_with(preset)
    done_ns = do_disk_io(state, 1000, 1, 0) // PS_PER_NS
    assert done_ns == preset.read_latency_ns + PAGE_SIZE * 1_000_000_000 // preset.read_bytes_per_s


@pytest.mark.parametrize(("name", "per_second"), [("ssd", 98_000), ("nvme", 490_000), ("hdd", 86)])
def test_a_full_queue_of_random_reads_gives_the_rate_of_the_data_sheet(name: str, per_second: int) -> None:
    state = machine_with(DISK_PRESETS[name])
    nr_requests = 1000
    done = max(do_disk_io(state, 10 * i, 1, 0) for i in range(1, nr_requests + 1))
    assert nr_requests * PS_PER_S / done == pytest.approx(per_second, rel=0.12)


def test_a_disk_streams_contiguous_pages_at_its_bandwidth() -> None:
    preset = DISK_PRESETS["hdd"]
    state = machine_with(preset)
    first = do_disk_io(state, 500, 1, 1)
    last = max(do_disk_io(state, 501 + i, 1, 1) for i in range(1000))
    assert first > 12 * NS_PER_MS * PS_PER_NS
    assert 1000 * PAGE_SIZE * PS_PER_S / (last - first) == pytest.approx(preset.write_bytes_per_s, rel=0.001)


def test_an_idle_epoch_has_the_mean_of_a_lone_read() -> None:
    state = machine_with(DISK_PRESETS["nvme"])
    do_disk_io(state, 8, 64, 0)
    do_begin_epoch(state)
    disk = state.disk[0]
    assert do_mean_service_ps(state) == disk.read_latency_ps + disk.page_read_ps
