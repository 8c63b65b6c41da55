"""SLAB on two NUMA nodes: objects stay with their node, whichever CPU frees them."""

import pytest

from node.build import build_state
from node.counters import Current, Knob
from node.invariants import check
from node.joints import slab_cache_destroy
from node.kalloc.kmem_cache import Allocator
from node.kalloc.slab_general import setup_general_caches
from node.kalloc.slab_nodes import nid_of
from node.kalloc.slab_numbers import slab_stats
from node.spec import MachineSpec, NumaSpec
from node.state import State
from shared.constants import GIB, MIB, NIL, PAGE_SHIFT
from shared.gfp_flags import GFP_NOWAIT
from shared.jit import entry
from tests.models.slab_machine import alloc_on, create_cache, free_on

pytestmark = pytest.mark.three_ways


@entry
def nid_of_frame(state: State, pfn: int) -> int:
    return nid_of(state, pfn)


def two_nodes(memory_bytes: int = 256 * MIB) -> State:
    state = build_state(MachineSpec(memory_bytes=memory_bytes, cpus=2, numa=NumaSpec(nodes=2)))
    state.knob[Knob.ALLOCATOR] = Allocator.SLAB
    setup_general_caches(state)
    return state


def nid(state: State, paddr: int) -> int:
    return nid_of_frame(state, paddr >> PAGE_SHIFT)


def test_each_cpu_gets_objects_of_its_node_and_remote_frees_go_home() -> None:
    state = two_nodes()
    cache = create_cache(state, "local", 300)
    held = {cpu: [alloc_on(state, cpu, cache) for _ in range(50)] for cpu in range(2)}
    for cpu in range(2):
        assert {nid(state, paddr) for paddr in held[cpu]} == {cpu}
        for paddr in held[cpu]:
            assert free_on(state, 1 - cpu, cache, paddr) == 0
    assert slab_stats(state, cache).node_frees == 100
    again = [alloc_on(state, 0, cache) for _ in range(50)]
    assert {nid(state, paddr) for paddr in again} == {0}
    check(state)
    for paddr in again:
        free_on(state, 0, cache, paddr)
    assert slab_cache_destroy(state, cache) == 0
    check(state)


def test_a_full_node_is_helped_by_the_other() -> None:
    state = two_nodes()
    cache = create_cache(state, "spilling", 4000)
    state.current[Current.CPU] = 0
    held = []
    while (paddr := alloc_on(state, 0, cache, GFP_NOWAIT)) != NIL:
        held.append(paddr)
    assert {nid(state, paddr) for paddr in held} == {0, 1}
    assert slab_stats(state, cache).node_allocs > 0
    assert len(held) * 4096 < GIB
    check(state)
