"""What SLUB does, in the plainest words: lists of addresses, no links, no counters packed into words.

A slab is a list of the addresses that are free in it. Each CPU has a slab with a freelist of its own, and a list of
partial slabs, the latest first; the node has a list of partial slabs. The model says which address comes next; only
where a new slab lies, it has to be told.
"""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(eq=False)
class ModelSlab:
    """A slab: its objects, and which of them are free in it."""

    objects: list[int]
    free: list[int]  # the next to hand out first
    frozen: bool = False

    @property
    def is_empty(self) -> bool:
        return len(self.free) == len(self.objects)


@dataclass
class ModelCpu:
    slab: ModelSlab | None = None
    freelist: list[int] = field(default_factory=list)
    partial: list[ModelSlab] = field(default_factory=list)


class ModelCache:
    """A cache with its limits, as /sys/kernel/slab tells them."""

    def __init__(
        self, nr_cpus: int, stride: int, per_slab: int, min_partial: int, cpu_partial_slabs: int
    ) -> None:
        self.stride = stride
        self.per_slab = per_slab
        self.min_partial = min_partial
        self.cpu_partial_slabs = cpu_partial_slabs
        self.cpus = [ModelCpu() for _ in range(nr_cpus)]
        self.node: list[ModelSlab] = []
        self.slab_of: dict[int, ModelSlab] = {}  # by the address of each object
        self.in_use: set[int] = set()
        self.stats: Counter[str] = Counter()

    # --- allocation ---

    def alloc(self, cpu: int, got: int) -> int:
        """Return the address that is handed out; ``got`` is believed only if it begins a new slab."""
        paddr = self._alloc(self.cpus[cpu], got)
        assert paddr not in self.in_use, f"0x{paddr:x} is in use"
        self.in_use.add(paddr)
        return paddr

    def _alloc(self, cpu: ModelCpu, got: int) -> int:
        if cpu.freelist:
            self.stats["alloc_fastpath"] += 1
            return cpu.freelist.pop(0)
        self.stats["alloc_slowpath"] += 1
        while cpu.slab or cpu.partial:
            if not cpu.slab:
                cpu.slab = cpu.partial.pop(0)
                self.stats["cpu_partial_alloc"] += 1
            if cpu.slab.free:
                self.stats["alloc_refill"] += 1
                return self._load(cpu, cpu.slab)
            cpu.slab.frozen = False
            cpu.slab = None
            self.stats["deactivate_bypass"] += 1
        if self.node:
            taken = self.node.pop(0)
            self.stats["alloc_from_partial"] += 1
            for _ in range(min(self.cpu_partial_slabs // 2 + 1, len(self.node))):
                more = self.node.pop(0)
                more.frozen = True
                cpu.partial.insert(0, more)
                self.stats["cpu_partial_node"] += 1
            return self._load(cpu, taken)
        self.stats["alloc_slab"] += 1
        objects = [got + self.stride * i for i in range(self.per_slab)]
        slab = ModelSlab(objects, list(objects))
        assert not self.slab_of.keys() & set(objects), f"a new slab at 0x{got:x} lies over another"
        self.slab_of.update(dict.fromkeys(objects, slab))
        return self._load(cpu, slab)

    def _load(self, cpu: ModelCpu, slab: ModelSlab) -> int:
        slab.frozen = True
        cpu.slab = slab
        first, *cpu.freelist = slab.free
        slab.free = []
        return first

    # --- free ---

    def free(self, cpu: int, paddr: int) -> None:
        """Take an object back."""
        self.in_use.remove(paddr)
        slab = self.slab_of[paddr]
        if self.cpus[cpu].slab is slab:
            self.stats["free_fastpath"] += 1
            self.cpus[cpu].freelist.insert(0, paddr)
            return
        self.stats["free_slowpath"] += 1
        was_full = not slab.free
        slab.free.insert(0, paddr)
        if slab.frozen:
            self.stats["free_frozen"] += 1
        elif was_full:
            self._put_by(self.cpus[cpu], slab)
            self.stats["cpu_partial_free"] += 1
        elif slab.is_empty and len(self.node) >= self.min_partial:
            self.node.remove(slab)
            self.stats["free_remove_partial"] += 1
            self._discard(slab)

    def _put_by(self, cpu: ModelCpu, slab: ModelSlab) -> None:
        slab.frozen = True
        drained: list[ModelSlab] = []
        if len(cpu.partial) >= self.cpu_partial_slabs:
            drained, cpu.partial = cpu.partial, []
            self.stats["cpu_partial_drain"] += 1
        cpu.partial.insert(0, slab)
        self._unfreeze(drained)

    def _unfreeze(self, slabs: list[ModelSlab]) -> None:
        for slab in slabs:
            slab.frozen = False
            if slab.is_empty and len(self.node) >= self.min_partial:
                self.stats["deactivate_empty"] += 1
                self._discard(slab)
            else:
                self.node.append(slab)
                self.stats["free_add_partial"] += 1

    def _discard(self, slab: ModelSlab) -> None:
        self.stats["free_slab"] += 1
        for paddr in slab.objects:
            del self.slab_of[paddr]

    # --- shrink ---

    def shrink(self) -> None:
        """Take all slabs from the CPUs, give back the empty ones, put the fullest first."""
        for cpu in self.cpus:
            if cpu.slab:
                self._deactivate(cpu.slab, cpu.freelist)
                cpu.slab = None
                cpu.freelist = []
                self.stats["cpuslab_flush"] += 1
            partial, cpu.partial = cpu.partial, []
            self._unfreeze(partial)
        for slab in [slab for slab in self.node if slab.is_empty]:
            self.node.remove(slab)
            self._discard(slab)
        # Each moves to the front of its like, of which the fullest come first; 33 free objects and more stay.
        moved = sorted((slab for slab in self.node[::-1] if len(slab.free) <= 32), key=lambda s: len(s.free))
        self.node = moved + [slab for slab in self.node if len(slab.free) > 32]

    def _deactivate(self, slab: ModelSlab, freelist: list[int]) -> None:
        others_freed = bool(slab.free)
        if others_freed:
            self.stats["deactivate_remote_frees"] += 1
        slab.free = freelist + slab.free
        slab.frozen = False
        if slab.is_empty and len(self.node) >= self.min_partial:
            self.stats["deactivate_empty"] += 1
            self._discard(slab)
        elif not slab.free:
            self.stats["deactivate_full"] += 1
        elif others_freed:
            self.node.append(slab)
            self.stats["deactivate_to_tail"] += 1
        else:
            self.node.insert(0, slab)
            self.stats["deactivate_to_head"] += 1
