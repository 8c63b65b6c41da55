"""Data caches that hold values: a line is a name, what it is called by memory, and the number last written to it.

Each set is a list, least recently used first. Every write stores a new number, so whether a cache ever serves
what is no longer true is a comparison of numbers.
"""

from dataclasses import dataclass, field

Name = tuple[int, int]  # line number of the address that the cache is tagged with, PCID

PAGE_BYTES = 4096


@dataclass
class Line:
    name: Name
    physical: int
    value: int
    modified: bool = False
    allowed: set[bool] = field(default_factory=set)  # of user programs: False reads, True writes


@dataclass
class DataCacheModel:
    """The caches of all CPUs, and memory behind them."""

    nr_cpus: int
    nr_sets: int
    nr_ways: int
    line_bytes: int
    virtual: bool
    memory: dict[int, int] = field(default_factory=dict)
    truth: dict[int, int] = field(default_factory=dict)  # what a read must give
    caches: list[list[list[Line]]] = field(init=False)
    hits: int = 0
    misses: int = 0
    synonyms: int = 0
    writebacks: int = 0
    invalidations: int = 0
    writes: int = 0

    def __post_init__(self) -> None:
        self.caches = [[[] for _ in range(self.nr_sets)] for _ in range(self.nr_cpus)]

    def counters(self) -> list[int]:
        return [self.hits, self.misses, self.synonyms, self.writebacks, self.invalidations]

    def lines(self, cpu: int, physical: int) -> list[Line]:
        return [line for ways in self.caches[cpu] for line in ways if line.physical == physical]

    def name_of(self, vaddr: int, pfn: int, pcid: int) -> tuple[Name, int]:
        physical = (pfn * PAGE_BYTES + vaddr % PAGE_BYTES) // self.line_bytes
        return ((vaddr // self.line_bytes, pcid) if self.virtual else (physical, 0)), physical

    def find(self, cpu: int, name: Name) -> Line | None:
        for line in self.caches[cpu][name[0] % self.nr_sets]:
            if line.name == name:
                return line
        return None

    def _write_back(self, line: Line) -> None:
        self.memory[line.physical] = line.value
        self.writebacks += 1

    def drop(self, cpu: int, line: Line) -> None:
        self.caches[cpu][line.name[0] % self.nr_sets].remove(line)
        if line.modified and not self.lines(cpu, line.physical):
            self._write_back(line)

    def access(self, cpu: int, vaddr: int, pfn: int, *, write: bool, pcid: int = 0) -> list[str]:
        """Read or write; return what has to be paid: look-ups and messages, by name."""
        name, physical = self.name_of(vaddr, pfn, pcid)
        line = self.find(cpu, name)
        others = [other for other in range(self.nr_cpus) if other != cpu]
        paid = ["hit"]
        if line is None:
            self.misses += 1
            holders = [
                other for other in others if any(copy.modified for copy in self.lines(other, physical))
            ]
            paid.append("transfer" if holders else "miss")
            for other in holders:
                copies = self.lines(other, physical)
                self._write_back(copies[0])
                for copy in copies:
                    copy.modified = False
            line = self._fill(cpu, name, physical)
        else:
            self.hits += 1
            if write and any(self.lines(other, physical) for other in others):
                paid.append("transfer")
        ways = self.caches[cpu][name[0] % self.nr_sets]
        ways.remove(line)
        ways.append(line)
        assert line.value == self.truth.get(physical, 0)
        if write:
            paid += ["hit"] * self._write(cpu, physical)
        line.allowed.add(write)
        return paid

    def _fill(self, cpu: int, name: Name, physical: int) -> Line:
        self.synonyms += bool(self.lines(cpu, physical))
        ways = self.caches[cpu][name[0] % self.nr_sets]
        if len(ways) == self.nr_ways:
            self.drop(cpu, ways[0])
        copies = self.lines(cpu, physical)
        if copies:
            line = Line(name, physical, copies[0].value, copies[0].modified)
        else:
            line = Line(name, physical, self.memory.get(physical, 0))
        ways.append(line)
        return line

    def _write(self, cpu: int, physical: int) -> int:
        for other in range(self.nr_cpus):
            if other != cpu:
                for copy in self.lines(other, physical):
                    self.drop(other, copy)
                    self.invalidations += 1
        self.writes += 1
        self.truth[physical] = self.writes
        copies = self.lines(cpu, physical)
        for copy in copies:
            copy.value = self.writes
            copy.modified = True
        return len(copies) - 1

    def drop_page(self, cpu: int, vaddr: int, pcid: int | None, page_bytes: int = PAGE_BYTES) -> None:
        for ways in self.caches[cpu]:
            for line in list(ways):
                same_page = line.name[0] * self.line_bytes // page_bytes == vaddr // page_bytes
                if same_page and pcid in (None, line.name[1]):
                    self.drop(cpu, line)

    def drop_pcid(self, cpu: int, pcid: int | None) -> None:
        for ways in self.caches[cpu]:
            for line in list(ways):
                if pcid in (None, line.name[1]):
                    self.drop(cpu, line)
