"""A machine in which everything has happened: forks, swapped and merged pages, free frames in pieces."""

from node.build import build_state
from node.counters import Current, Knob, KsmRun
from node.ksm.ksmd import ksm_do_scan, ksm_set_run
from node.spec import MachineSpec, SwapSpec
from node.vm.madvise import madvise_mergeable
from shared.constants import MIB, PAGE_SIZE
from tests.node.vm_machine import SMALL_TLB, VmMachine

MEMORY_BYTES = 64 * MIB
NR_MERGEABLE = 60
NR_CONTENTS = 7
NR_LARGE = 5200  # pages of a process that does not fit beside the others
FULL_SCANS = 3


class BusyMachine(VmMachine):
    """Processes: ``mergers`` that share pages, a ``child`` of one, and a ``large`` one, partly swapped."""

    def __init__(self) -> None:
        spec = MachineSpec(
            MEMORY_BYTES, cpus=2, min_free_kbytes=256, swap=SwapSpec(8 * MIB), tlb=SMALL_TLB, swappiness=100
        )
        self.state = build_state(spec)
        self.state.knob[Knob.KSM_MAX_PAGE_SHARING] = 8
        self.mergers = [self.spawn(), self.spawn()]
        self.start = [self.map(mm, NR_MERGEABLE) for mm in self.mergers]
        for mm, start in zip(self.mergers, self.start, strict=True):
            for page in range(NR_MERGEABLE):
                self.write(
                    mm,
                    start + page * PAGE_SIZE,
                    page % NR_CONTENTS if page < NR_MERGEABLE - 9 else 100 + page + mm,
                )
            madvise_mergeable(self.state, mm, start, start + NR_MERGEABLE * PAGE_SIZE)
        ksm_set_run(self.state, KsmRun.MERGE)
        for _ in range(FULL_SCANS):
            ksm_do_scan(self.state, 10_000)
        ksm_do_scan(self.state, NR_MERGEABLE)
        self.child = self.fork(self.mergers[0])
        for page in range(0, NR_MERGEABLE, 11):
            self.write(self.child, self.start[0] + page * PAGE_SIZE, 200)
        self.large = self.spawn()
        self.large_start = self.map(self.large, NR_LARGE)
        for page in range(NR_LARGE):
            self.write(self.large, self.large_start + page * PAGE_SIZE, 1 + page % 250)
        for page in range(0, 400, 3):
            self.write(self.large, self.large_start + page * PAGE_SIZE, 7)
        self.unmap(self.large, self.large_start + 500 * PAGE_SIZE, 300)
        self.state.current[Current.CPU] = 1
        self.read(self.large, self.large_start)

    def go_on(self) -> list[int]:
        """Do some of everything once more; return what was found on the way."""
        large = range(self.large_start, self.large_start + 300 * PAGE_SIZE, 7 * PAGE_SIZE)
        found = [self.write(self.large, vaddr, vaddr // PAGE_SIZE % 9) for vaddr in large]
        found.append(ksm_do_scan(self.state, 100))
        merged = range(self.start[1], self.start[1] + NR_MERGEABLE * PAGE_SIZE, PAGE_SIZE)
        found += [self.write(self.mergers[1], vaddr, 3) for vaddr in merged]
        grandchild = self.fork(self.child)
        found.append(grandchild)
        found.append(self.unmap(self.large, self.large_start + 1000 * PAGE_SIZE, 500))
        found.append(self.exit(self.child))
        return found
