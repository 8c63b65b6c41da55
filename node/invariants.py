"""Invariants: what must hold of a machine whenever no kernel runs, whatever was done to it.

    every frame is in exactly one place; every count equals what it counts; every list and tree is whole; and
    no translation, in a page table or in a TLB, allows what the kernel did not grant

Each room says what must hold of its own tables, in a file beside its kernels that is written apart from
them, with numpy; here they are put together. What a check relies on is checked before it, and where that is
found broken the rest is left out: a broken list makes nonsense of all that is counted on it.

A run with ``--check`` checks at every border of an epoch; tests do after every step. A host and its guests
have more to hold at a border: node/guest/invariants.py.
"""

from node.alloc_trace_check import check_alloc_traces
from node.findings import check_pools
from node.hw.data_cache_check import check_data_cache
from node.kalloc.slab_check import check_slab
from node.kalloc.slob_check import check_slob
from node.kalloc.slub_check import check_slub
from node.kalloc.vmap_check import check_vmap
from node.kmap.tlb_check import forbidden_entries
from node.ksm.ksm_check import check_ksm, held_anon_vmas
from node.phys.compact_check import check_compaction
from node.phys.dma_check import check_dma
from node.phys.frames_check import check_frames
from node.phys.reserved_check import check_reserved
from node.reclaim.lru_check import check_lru
from node.state import State
from node.swap.swap_check import check_swap
from node.vm.area_check import check_areas
from node.vm.mappings import all_mappings
from node.vm.vm_check import check_vm


class InvariantError(AssertionError):
    """The state of a machine contradicts itself: a defect of the program. One line for each contradiction."""


def violations(state: State) -> list[str]:
    """Return one line for each contradiction found; none if all is well."""
    for independent in (check_pools, check_frames, check_reserved):
        wrong = independent(state)
        if wrong:
            return wrong
    mappings = all_mappings(state)
    wrong = check_vm(state, mappings, held_anon_vmas(state)) or check_areas(state)
    if wrong:
        return wrong
    return (
        check_lru(state)
        + check_compaction(state)
        + check_swap(state, mappings)
        + check_ksm(state, mappings)
        + check_slab(state)
        + check_slob(state)
        + check_slub(state)
        + check_vmap(state)
        + forbidden_entries(state)
        + check_data_cache(state)
        + check_dma(state)
        + check_alloc_traces(state)
    )


def check(state: State) -> None:
    """Raise ``InvariantError`` if anything does not hold of the machine's state."""
    wrong = violations(state)
    if wrong:
        raise InvariantError("\n".join(wrong))
