"""A machine with nothing but frames and a swap area, for tests of slots and the swap cache."""

from node.counters import Current, Knob, VmEvent, VmStat
from node.hw.cost import Cost
from node.hw.disk import DISK_PRESETS, setup_disk
from node.joints import add_to_swap
from node.phys.pcp import NR_PCP_LISTS
from node.phys.zone import NR_ZONES
from node.reclaim.lru import NR_LRU_LISTS
from node.state import State
from node.swap.slots import nr_clusters, setup_swap_area
from shared.constants import NIL


def swap_machine(nr_slots: int, rotational: int, nr_frames: int = 64, nr_cpus: int = 2) -> State:
    """Return a state whose frames 1 .. nr_frames - 1 are each held by one reference, the test's."""
    preset = DISK_PRESETS["hdd" if rotational else "ssd"]
    lengths = dict.fromkeys(State.LAYOUT, 1) | {
        "panic": 4,
        "current": Current.NR,
        "request": 16,
        "knob": Knob.NR,
        "cost": Cost.NR,
        "vm_event": VmEvent.NR,
        "vm_stat": VmStat.NR,
        "page": nr_frames,
        "zone": NR_ZONES,
        "pcp": nr_cpus * NR_ZONES,
        "pcp_list": nr_cpus * NR_ZONES * NR_PCP_LISTS,
        "lru": NR_LRU_LISTS,
        "swap_cpu": nr_cpus,
        "swap_cluster": nr_clusters(nr_slots),
        "swap_slot": nr_slots,
        "disk_queue": preset.queue_depth,
        "writeback": preset.nr_requests,
    }
    state = State(**lengths)
    setup_disk(state, preset)
    setup_swap_area(state, nr_slots, rotational)
    state.pcp_list["first"][:] = NIL
    state.pcp_list["last"][:] = NIL
    state.pcp["limit"][:] = nr_frames + 1
    state.page["refcount"][1:] = 1
    return state


def add_pages(state: State, pfns: range) -> list[int]:
    """Put frames into the swap cache one after the other; return their slots."""
    return [add_to_swap(state, pfn) for pfn in pfns]
