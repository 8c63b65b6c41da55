"""A block device as an event list: every request with the times of its life."""

from dataclasses import dataclass, field

from node.hw.disk import DiskPreset
from shared.constants import NS_PER_S, PAGE_SIZE, PS_PER_NS


@dataclass
class Served:
    """One request and its times, ps."""

    issued: int
    started: int
    on_bus: int
    done: int
    place: int
    write: bool


@dataclass
class DiskModel:
    """Serves requests in order of issue and remembers all of them."""

    preset: DiskPreset
    served: list[Served] = field(default_factory=list)
    arm: int = 0

    def request(self, now: int, first_page: int, nr_pages: int, write: bool) -> int:
        """Return when a request issued at ``now`` is done."""
        latency_ns = self.preset.write_latency_ns if write else self.preset.read_latency_ns
        rate = self.preset.write_bytes_per_s if write else self.preset.read_bytes_per_s
        transfer = nr_pages * (PAGE_SIZE * NS_PER_S * PS_PER_NS // rate)
        if self.preset.rotational and first_page == self.arm:
            latency_ns = 0
        self.arm = first_page + nr_pages
        free_at = {
            place: max((old.done for old in self.served if old.place == place), default=0)
            for place in range(self.preset.queue_depth)
        }
        place = min(free_at, key=lambda number: (free_at[number], number))
        started = max(now, free_at[place])
        on_bus = max([started + latency_ns * PS_PER_NS, *(old.done for old in self.served)])
        self.served.append(Served(now, started, on_bus, on_bus + transfer, place, write))
        return on_bus + transfer

    def mean_read_ps(self) -> int:
        """Return the mean time from issue to completion of all reads."""
        times = [old.done - old.issued for old in self.served if not old.write]
        return sum(times) // len(times)
