"""Programs on a machine that runs out of memory, and what they see of processes that end for it."""

import pytest

from node.invariants import check
from node.machine import Machine, MachineSpec
from shared.constants import MIB

pytestmark = pytest.mark.three_ways


def machine() -> Machine:
    """Return a machine with little memory: most of it is kept back."""
    return Machine(MachineSpec(memory_bytes=72 * MIB, min_free_kbytes=18_000, swap=None))


def seen(text: str) -> tuple[Machine, dict[str, dict[str, int]]]:
    box = machine()
    return box, dict(box.run_program(text).snapshots)


def test_a_process_that_ends_for_another_leaves_a_zombie_and_the_program_goes_on() -> None:
    box, snapshots = seen(
        "spawn A oom=900\nA: mmap h 2M\nA: write h\nspawn B\nB: mmap k 12M\nsnapshot before\n"
        "B: write k len=1400P\nsnapshot after\nA: write h\nsnapshot end\n"
    )
    assert snapshots["before"]["proc.A.oom_score"] > 1200
    after = snapshots["after"]
    assert (after["proc.A.dead"], after["proc.B.dead"], after["vmstat.oom_kill"]) == (1, 0, 1)
    assert (after["proc.A.oom_score"], after["proc.A.minflt"], after["proc.A.map.h.present"]) == (0, 512, 0)
    assert after["proc.A.map.h.pages"] == 512
    assert snapshots["end"]["vmstat.pgfault"] == after["vmstat.pgfault"]
    assert after["vmstat.nr_anon_pages"] == 1400
    check(box.state)


def test_a_process_that_ends_for_itself_is_only_known_to_be_dead() -> None:
    box, snapshots = seen("spawn A\nA: mmap h 12M\nA: write h\nA: read h\nsnapshot after\n")
    of_process = {key: value for key, value in snapshots["after"].items() if key.startswith("proc.A.")}
    assert of_process == {"proc.A.dead": 1}
    assert snapshots["after"]["vmstat.nr_anon_pages"] == 0
    check(box.state)


def test_a_process_that_is_killed_is_gone() -> None:
    box, snapshots = seen("spawn A\nA: mmap h 1M\nA: write h\nspawn B\nkill A\nsnapshot s\n")
    assert not [key for key in snapshots["s"] if key.startswith("proc.A.")]
    assert snapshots["s"]["vmstat.nr_anon_pages"] == 0
    assert snapshots["s"]["vmstat.oom_kill"] == 0
    check(box.state)


def test_programs_lock_and_unlock_memory() -> None:
    box, snapshots = seen(
        "spawn A\nA: mmap h 1M\nA: mlock h len=64P\nsnapshot some\nA: munlock h off=32P\nsnapshot half\n"
        "A: mlockonfault h\nA: write h\nsnapshot all\nA: mmap l 8P locked\nsnapshot more\n"
    )
    kib = [
        (values["proc.A.VmLck"], values["meminfo.Mlocked"], values["meminfo.Unevictable"])
        for name, values in snapshots.items()
        if name != "boot"
    ]
    assert kib == [(256, 256, 256), (128, 128, 128), (1024, 1024, 1024), (1056, 1056, 1056)]
    assert snapshots["more"]["proc.A.map.l.unevictable"] == 8
    check(box.state)
