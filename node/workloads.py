"""Starting a machine's processes: an address space, a mapping, and a workload or a program for each."""

from typing import TYPE_CHECKING, Final

from node.alloc_traces import start_alloc_traces
from node.counters import Current
from node.dma_setup import DMA, start_transfers
from node.program.program import Program
from node.program.text import ProgramError
from node.spec import MachineSpec, WorkSpec
from node.traces import fill_traces, start_trace, trace_places
from node.vm.madvise import madvise_mergeable
from node.vm.mm_init import new_mm
from node.vm.mmap import mmap
from node.vm.vma import VmFlag
from node.work import WorkKind, zipf_table
from shared.constants import NIL, PAGE_SIZE, PS_PER_NS
from shared.streams import Purpose, splitmix64, stream_key
from shared.wrap64 import to_signed

if TYPE_CHECKING:
    from node.state import State

KINDS: Final = {
    "sequential": WorkKind.SEQUENTIAL,
    "uniform": WorkKind.UNIFORM,
    "zipf": WorkKind.ZIPF,
    "syscall": WorkKind.SYSCALL,
    DMA: WorkKind.DMA,
}
THOUSANDTHS: Final = 1000


def start_works(state: "State", spec: MachineSpec) -> None:
    """Make the processes of the machine's workloads; they run when the machine does.

    Raises ValueError if the machine has no room for their mappings.
    """
    traces = trace_places(spec.works)
    fill_traces(state, traces)
    start_alloc_traces(state, spec.works)
    zipf_base = 0
    dma_frame = 0
    for index, (work, trace) in enumerate(zip(spec.works, traces, strict=True)):
        if work.program:
            _run_program(state, work)
            continue
        if work.allocations is not None:
            continue
        state.current[Current.CPU] = work.cpu
        mm_index = new_mm(state)
        if mm_index == NIL:
            raise ValueError(f"processes.{index}: the machine has no memory for one more process")
        seed = splitmix64(splitmix64(*stream_key(spec.seed, spec.machine, Purpose.WORKLOAD)), index)
        _set_work(state, index, work, mm_index)
        record = state.work[index]
        record.seed = to_signed(seed)
        if trace is not None:
            start_trace(state, index, work, trace)
            continue
        if work.workload == DMA:
            dma_frame = start_transfers(state, index, work, dma_frame)
            continue
        start = mmap(state, mm_index, work.memory_bytes, VmFlag.READ | VmFlag.WRITE)
        if start == NIL:
            where = "an address space" if spec.hw.paging != "none" else "a free block of physical memory"
            raise ValueError(f"processes.{index}.memory: {work.memory_bytes} bytes do not fit {where}")
        if work.mergeable:
            madvise_mergeable(state, mm_index, start, start + work.memory_bytes)
        record.vaddr = start
        if work.workload == "zipf":
            table = zipf_table(record.nr_pages, str(work.skew_thousandths / THOUSANDTHS), seed)
            state.zipf[zipf_base : zipf_base + len(table)] = table
            record.zipf_base = zipf_base
            zipf_base += len(table)


def _run_program(state: "State", work: WorkSpec) -> None:
    """Run a program to its end, before the first epoch: it says itself how much time passes (``sleep``)."""
    state.current[Current.CPU] = work.cpu
    try:
        Program(work.text).run(state)
    except ProgramError as error:
        raise ValueError(f"{work.program}: {error}") from None


def _set_work(state: "State", index: int, work: WorkSpec, mm_index: int) -> None:
    record = state.work[index]
    record.kind = WorkKind.TRACE if work.trace else KINDS[work.workload]
    record.mm = mm_index
    record.cpu = work.cpu
    record.nr_pages = work.memory_bytes // PAGE_SIZE
    record.operations = work.operations
    record.write_percent = work.write_percent
    record.think_ps = work.think_ns * PS_PER_NS
