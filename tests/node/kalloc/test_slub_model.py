"""SLUB on random operations of several CPUs, beside a model that says which object comes next, and by which path.

No object is handed out twice, none is lost, and what is counted is what happened.
"""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from node.invariants import violations
from node.kalloc.cache_list import kmem_cache_destroy, kmem_cache_shrink
from node.kalloc.calls import kmalloc
from node.kalloc.kmem_cache import SLAB_DEBUG_FLAGS, SlabFlag
from node.kalloc.slab_report import nr_reports, slab_reports
from node.kalloc.slub_check import check_slub
from shared.constants import NIL
from shared.gfp_flags import GFP_KERNEL
from tests.models.slub import ModelCache
from tests.node.kalloc.slub_machine import SlubMachine

pytestmark = pytest.mark.three_ways

CPUS = 3  # min_objects 12
# (size, flags, objects a slab, min_partial, slabs of a CPU's partial list), worked out by hand.
KINDS = (
    (700, 0, 23, 5, 5),
    (2048, SlabFlag.RECLAIM_ACCOUNT, 16, 5, 3),
    (4096, 0, 8, 6, 2),
    (1000, 0, 16, 5, 7),
)
MOST_AT_ONCE = 60


class SlubPaths(RuleBasedStateMachine):
    """Caches of several sizes, each beside its model."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = SlubMachine(cpus=CPUS)
        self.caches = []
        self.models = []
        for kind in range(len(KINDS)):
            self.caches.append(NIL)
            self.models.append(ModelCache(CPUS, 8, 1, 1, 1))
            self._make(kind)

    def _make(self, kind: int) -> None:
        size, flags, per_slab, min_partial, cpu_partial_slabs = KINDS[kind]
        self.caches[kind] = self.machine.create(size, flags | SlabFlag.NO_MERGE, f"cache-{size}")
        self.models[kind] = ModelCache(CPUS, (size + 7) // 8 * 8, per_slab, min_partial, cpu_partial_slabs)

    @rule(
        cpu=st.integers(0, CPUS - 1), kind=st.integers(0, len(KINDS) - 1), count=st.integers(1, MOST_AT_ONCE)
    )
    def allocate(self, cpu: int, kind: int, count: int) -> None:
        self.machine.on(cpu)
        for _ in range(count):
            got = self.machine.alloc(self.caches[kind])
            assert got == self.models[kind].alloc(cpu, got)

    @rule(
        cpu=st.integers(0, CPUS - 1),
        kind=st.integers(0, len(KINDS) - 1),
        first=st.integers(0, 100),
        step=st.integers(1, 20),
        count=st.integers(1, 2 * MOST_AT_ONCE),
    )
    def free(self, cpu: int, kind: int, first: int, step: int, count: int) -> None:
        self.machine.on(cpu)
        for paddr in sorted(self.models[kind].in_use)[first::step][:count]:
            self.machine.free(self.caches[kind], paddr)
            self.models[kind].free(cpu, paddr)

    @rule(kind=st.integers(0, len(KINDS) - 1))
    def shrink(self, kind: int) -> None:
        kmem_cache_shrink(self.machine.state, self.caches[kind])
        self.models[kind].shrink()

    @rule(kind=st.integers(0, len(KINDS) - 1))
    def end(self, kind: int) -> None:
        if not self.models[kind].in_use:
            assert kmem_cache_destroy(self.machine.state, self.caches[kind]) == 0
            self._make(kind)

    @invariant()
    def what_is_counted_is_what_happened(self) -> None:
        for cache, model in zip(self.caches, self.models, strict=True):
            assert self.machine.stats(cache) == dict(model.stats)
            assert self.machine.state.kmem_cache[cache].nr_objects == len(model.in_use)
        assert check_slub(self.machine.state) == []
        assert nr_reports(self.machine.state) == 0, slab_reports(self.machine.state)

    def teardown(self) -> None:
        assert violations(self.machine.state) == []


class DebuggedObjects(RuleBasedStateMachine):
    """A cache that is debugged, and kmalloc: no two objects that are in use share a byte."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = SlubMachine(cpus=CPUS)
        self.cache = self.machine.create(100, SLAB_DEBUG_FLAGS)
        self.objects: set[int] = set()
        self.bytes: dict[int, int] = {}  # size by address

    @rule(cpu=st.integers(0, CPUS - 1), count=st.integers(1, MOST_AT_ONCE))
    def allocate(self, cpu: int, count: int) -> None:
        self.machine.on(cpu)
        for paddr in self.machine.take(self.cache, count):
            assert paddr not in self.objects
            self.objects.add(paddr)

    @rule(cpu=st.integers(0, CPUS - 1), first=st.integers(0, 20), step=st.integers(1, 5))
    def free(self, cpu: int, first: int, step: int) -> None:
        self.machine.on(cpu)
        for paddr in sorted(self.objects)[first::step]:
            self.machine.free(self.cache, paddr)
            self.objects.remove(paddr)

    @rule(cpu=st.integers(0, CPUS - 1), size=st.integers(1, 20_000))
    def take_bytes(self, cpu: int, size: int) -> None:
        self.machine.on(cpu)
        paddr = kmalloc(self.machine.state, size, GFP_KERNEL)
        assert paddr != NIL
        assert all(paddr + size <= other or other + length <= paddr for other, length in self.bytes.items())
        self.bytes[paddr] = size

    @rule(cpu=st.integers(0, CPUS - 1), first=st.integers(0, 5))
    def give_bytes(self, cpu: int, first: int) -> None:
        self.machine.on(cpu)
        for paddr in sorted(self.bytes)[first::3]:
            assert self.machine.kfree(paddr) == 0
            del self.bytes[paddr]

    @invariant()
    def counts_agree(self) -> None:
        assert self.machine.state.kmem_cache[self.cache].nr_objects == len(self.objects)
        assert check_slub(self.machine.state) == []
        assert nr_reports(self.machine.state) == 0, slab_reports(self.machine.state)

    def teardown(self) -> None:
        assert violations(self.machine.state) == []


TestSlubPaths = SlubPaths.TestCase
TestSlubPaths.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestDebuggedObjects = DebuggedObjects.TestCase
TestDebuggedObjects.settings = settings(max_examples=12, stateful_step_count=20, deadline=None)
