"""A machine for tests of SLUB, with the steps that they take."""

from node.build import build_state
from node.counters import Current, Knob
from node.hw.hardware import resolve_hw
from node.kalloc.cache_list import create_cache
from node.kalloc.calls import kfree, kmalloc, kmem_cache_alloc, kmem_cache_free
from node.kalloc.kmem_cache import Allocator
from node.kalloc.slub_check import check_slub
from node.kalloc.slub_stats import slub_stats
from node.phys.frames_check import check_frames
from node.spec import MachineSpec, NumaSpec
from node.state import State
from shared.constants import MIB, NIL
from shared.gfp_flags import GFP_KERNEL

SMALL_BYTES = 72 * MIB  # little more than the kernel itself takes
SMALL_HW, SMALL_TLB = resolve_hw({"tlb": {"l1_entries": 4, "l1_ways": 2, "l2_entries": 16, "l2_ways": 4}})


class SlubMachine:
    """A machine whose kernel allocates objects."""

    def __init__(self, cpus: int = 2, debug: int = 0, nodes: int = 1) -> None:
        spec = MachineSpec(
            nodes * SMALL_BYTES,
            cpus=cpus,
            min_free_kbytes=128,
            tlb=SMALL_TLB,
            hw=SMALL_HW,
            numa=NumaSpec(nodes),
        )
        self.state: State = build_state(spec)
        self.state.knob[Knob.ALLOCATOR] = Allocator.SLUB
        self.state.knob[Knob.SLAB_DEBUG] = debug

    def create(self, size: int, flags: int = 0, name: str = "test", align: int = 0) -> int:
        """Return a new cache."""
        cache = create_cache(self.state, name, size, align, flags)
        assert cache != NIL
        return cache

    def on(self, cpu: int) -> None:
        """Let ``cpu`` do what comes next."""
        self.state.current[Current.CPU] = cpu

    def alloc(self, cache: int) -> int:
        """Return a new object."""
        paddr = kmem_cache_alloc(self.state, cache, GFP_KERNEL)
        assert paddr != NIL
        return paddr

    def take(self, cache: int, count: int) -> list[int]:
        """Return ``count`` new objects."""
        return [self.alloc(cache) for _ in range(count)]

    def free(self, cache: int, *paddrs: int) -> None:
        """Give objects back, which must be right."""
        for paddr in paddrs:
            assert kmem_cache_free(self.state, cache, paddr) == 0

    def kmalloc(self, size: int, gfp: int = GFP_KERNEL) -> int:
        """Return the address of ``size`` bytes."""
        paddr = kmalloc(self.state, size, gfp)
        assert paddr != NIL
        return paddr

    def kfree(self, paddr: int) -> int:
        """Give back what kmalloc gave; return 0 or a SlabError."""
        return kfree(self.state, paddr)

    def stats(self, cache: int) -> dict[str, int]:
        """Return the counters of a cache that are not 0."""
        return {name: value for name, value in slub_stats(self.state, cache).items() if value}

    def check(self) -> None:
        """Fail if SLUB's tables or the free frames contradict themselves."""
        assert check_slub(self.state) + check_frames(self.state) == []
