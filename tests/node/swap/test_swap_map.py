"""What a swap area costs in memory: its map, by vmalloc."""

import pytest

from node.build import build_state
from node.counters import VmStat
from node.invariants import check
from node.spec import MachineSpec, SwapSpec
from node.swap.swap_map import free_swap_map
from shared.constants import MIB

pytestmark = pytest.mark.three_ways


@pytest.mark.parametrize(
    ("device", "mib", "pages"), [("ssd", 16, 1 + 1), ("ssd", 2048, 128 + 4), ("hdd", 2048, 128)]
)
def test_a_byte_a_slot_and_eight_a_cluster(device: str, mib: int, pages: int) -> None:
    state = build_state(MachineSpec(memory_bytes=72 * MIB, swap=SwapSpec(mib * MIB, device)))
    assert state.vm_stat[VmStat.NR_VMALLOC] == pages
    check(state)
    free_swap_map(state)
    assert state.vm_stat[VmStat.NR_VMALLOC] == 0
    check(state)


def test_a_map_that_does_not_fit_is_one_line() -> None:
    spec = MachineSpec(memory_bytes=72 * MIB, swap=SwapSpec(1 << 40, "ssd"))
    with pytest.raises(ValueError, match=r"^swap.size: there is no memory for 268435456 bytes of its map$"):
        build_state(spec)
