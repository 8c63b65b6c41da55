"""What the controller does: it starts processes, notes counters, and works the knobs of /proc and /sys."""

from collections.abc import Callable
from typing import Final

from node.counters import Current, Knob, KsmRun
from node.joints import exit_mmap
from node.ksm.ksmd import ksm_do_scan, ksm_set_run
from node.phys.compaction import compact_memory
from node.program.run import Process, Run
from node.program.text import Command
from shared.constants import NIL

KSM_KNOBS: Final = {
    "pages_to_scan": Knob.KSM_PAGES_TO_SCAN,
    "sleep_millisecs": Knob.KSM_SLEEP_MILLISECS,
    "max_page_sharing": Knob.KSM_MAX_PAGE_SHARING,
    "use_zero_pages": Knob.KSM_USE_ZERO_PAGES,
    "merge_across_nodes": Knob.KSM_MERGE_ACROSS_NODES,
    "stable_node_chains_prune_millisecs": Knob.KSM_PRUNE_MILLISECS,
}
# What the recording's controller sets while it counts scans exactly (the goldens' ksm levels show it).
SCAN_SLEEP_MILLISECS: Final = 500_000
SCAN_ALL_PAGES: Final = 100_000_000


def _spawn(run: Run, command: Command) -> None:
    name = command.word(0, "a name")
    if name in run.processes and run.processes[name].alive:
        raise command.fail(f"there is a process {name} already")
    mm_index = run.harness.spawn()
    if mm_index == NIL:
        raise command.fail("spawn failed: no memory")
    run.state.mm[mm_index].oom_score_adj = int(command.options.get("oom", "0"))
    run.add(name, Process(mm_index))


def _kill(run: Run, command: Command) -> None:
    name = command.word(0, "a process")
    process = run.processes[name]
    if process.alive:
        exit_mmap(run.state, process.mm)
        run.harness.exited(process.mm)
    del run.processes[name]


def _snapshot(run: Run, command: Command) -> None:
    name = command.word(0, "a name")
    run.harness.before_snapshot(name)
    run.snapshot(name)


def _ksm(run: Run, command: Command) -> None:
    if len(command.words) % 2:
        raise command.fail("ksm needs pairs of a file of /sys/kernel/mm/ksm and a value")
    for knob, text in zip(command.words[::2], command.words[1::2], strict=True):
        value = command.parse(text)
        if knob == "run":
            if value not in tuple(KsmRun):
                raise command.fail(f"ksm run {value} is not 0, 1 or 2")
            if ksm_set_run(run.state, value) == NIL:
                raise command.fail("no memory to undo all merges")
        elif knob in KSM_KNOBS:
            run.state.knob[KSM_KNOBS[knob]] = value
        else:
            raise command.fail(f"there is no /sys/kernel/mm/ksm/{knob}")


def _scan_batches(run: Run, nr_batches: int, nr_pages: int) -> None:
    run.state.knob[Knob.KSM_PAGES_TO_SCAN] = nr_pages
    run.state.knob[Knob.KSM_SLEEP_MILLISECS] = SCAN_SLEEP_MILLISECS
    ksm_set_run(run.state, KsmRun.MERGE)
    run.state.current[Current.MM] = 0  # ksmd has no process
    for _ in range(nr_batches):
        ksm_do_scan(run.state, nr_pages)
    ksm_set_run(run.state, KsmRun.STOP)


def _ksm_scan(run: Run, command: Command) -> None:
    _scan_batches(run, command.parse(command.word(0, "a number of full scans")), SCAN_ALL_PAGES)


def _ksm_step(run: Run, command: Command) -> None:
    nr_batches = command.parse(command.word(0, "a number of batches"))
    _scan_batches(run, nr_batches, command.parse(command.word(1, "a number of pages")))


def _sleep(run: Run, command: Command) -> None:
    run.pass_time(command.parse(command.word(0, "milliseconds")))


def _compact(run: Run, command: Command) -> None:
    if command.words:
        raise command.fail("compact takes no arguments")
    compact_memory(run.state)


CONTROLLER: Final[dict[str, Callable[[Run, Command], None]]] = {
    "spawn": _spawn,
    "kill": _kill,
    "snapshot": _snapshot,
    "ksm": _ksm,
    "ksm_scan": _ksm_scan,
    "ksm_step": _ksm_step,
    "ksm_wait": _sleep,
    "sleep": _sleep,
    "compact": _compact,
}
