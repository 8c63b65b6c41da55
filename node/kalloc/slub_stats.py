"""What SLUB counted, for Python: the files that CONFIG_SLUB_STATS puts in /sys/kernel/slab/NAME.

Linux: mm/slub.c (show_stat).
"""

from typing import TYPE_CHECKING

from node.counters import Knob
from node.kalloc.slub_records import LargeStat, SlubStat

if TYPE_CHECKING:
    from node.state import State

_IN_THE_CPUS: tuple[SlubStat, ...] = (SlubStat.ALLOC_FASTPATH, SlubStat.FREE_FASTPATH)


def slub_stats(state: "State", cache: int) -> dict[str, int]:
    """Return each counter of a cache, of all CPUs together, by its name in lower case."""
    nr_cpus = state.knob[Knob.NR_CPUS]
    of_cpus = state.kmem_cache_cpu[cache * nr_cpus : (cache + 1) * nr_cpus]
    stats = {}
    for item in SlubStat:
        if item == SlubStat.NR:
            continue
        name = item.name.lower()
        counted = int(of_cpus[name].sum()) if item in _IN_THE_CPUS else 0
        stats[name] = counted + state.slub_stat[cache * SlubStat.NR + item]
    return stats


def large_stats(state: "State") -> dict[str, int]:
    """Return what was counted of kmalloc's requests that are too large for its caches."""
    return {item.name.lower(): state.kmalloc_large[item] for item in LargeStat if item != LargeStat.NR}
