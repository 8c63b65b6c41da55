"""A small machine whose object allocator is SLAB, for the tests of its files."""

from node.build import build_state
from node.counters import Current, Era, Knob
from node.joints import slab_cache_alloc, slab_cache_free
from node.kalloc.cache_list import create_cache
from node.kalloc.kmem_cache import Allocator
from node.kalloc.slab_general import setup_general_caches
from node.spec import MachineSpec
from node.state import State
from shared.constants import MIB
from shared.gfp_flags import GFP_KERNEL


def slab_machine(cpus: int = 1, era: int = Era.LINUX_6_1, mib: int = 128) -> State:
    state = build_state(MachineSpec(memory_bytes=mib * MIB, cpus=cpus))
    state.knob[Knob.ALLOCATOR] = Allocator.SLAB
    state.knob[Knob.ERA] = era
    if not state.slab_general[0]:
        setup_general_caches(state)
    return state


def alloc_on(state: State, cpu: int, cache: int, gfp: int = GFP_KERNEL) -> int:
    state.current[Current.CPU] = cpu
    return slab_cache_alloc(state, cache, gfp)


def free_on(state: State, cpu: int, cache: int, paddr: int) -> int:
    state.current[Current.CPU] = cpu
    return slab_cache_free(state, cache, paddr)


__all__ = ["alloc_on", "create_cache", "free_on", "slab_machine"]
