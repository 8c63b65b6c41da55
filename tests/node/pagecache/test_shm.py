"""Shared memory with a name: System V segments and POSIX objects."""

import numpy as np
import pytest

from node.counters import Request, VmStat
from node.errno import Errno
from node.invariants import check
from node.pagecache.shm import (
    IPC_PRIVATE,
    SHMMNI,
    ShmFlag,
    ShmKind,
    shm_open,
    shm_remove,
    shm_stat,
    shm_truncate,
    shm_unlink,
    shmat,
    shmdt,
    shmget,
)
from node.pool import Pool
from shared.constants import NIL, PAGE_SIZE
from tests.node.fault.test_file import map_at
from tests.node.vm_machine import VmMachine

pytestmark = pytest.mark.three_ways

KEY = 0x1234
CREATE = ShmFlag.IPC_CREAT
BASE = 0x10000000


@pytest.fixture
def machine() -> VmMachine:
    return VmMachine()


def stat(machine: VmMachine, segment: int) -> tuple[int, ...]:
    """Return a segment's bytes, how often it is attached, and its pages in memory."""
    assert shm_stat(machine.state, segment) == 0
    return tuple(int(value) for value in machine.state.request[Request.R0 : Request.R2 + 1])


def test_a_key_finds_its_segment_and_no_other(machine: VmMachine) -> None:
    state = machine.state
    assert shmget(state, KEY, 5000, 0) == Errno.ENOENT
    segment = shmget(state, KEY, 5000, CREATE)
    assert segment > 0
    assert shmget(state, KEY, 5000, CREATE) == shmget(state, KEY, 0, 0) == segment
    assert shmget(state, KEY, 5001, 0) == Errno.EINVAL
    assert shmget(state, KEY, 5000, CREATE | ShmFlag.IPC_EXCL) == Errno.EEXIST
    assert shmget(state, KEY + 1, 0, CREATE) == Errno.EINVAL
    assert shmget(state, IPC_PRIVATE, 1, 0) not in (segment, shmget(state, IPC_PRIVATE, 1, 0))
    assert state.vm_stat[VmStat.NR_COMMITTED] == 2 + 1 + 1
    check(state)


def test_two_processes_see_what_either_writes(machine: VmMachine) -> None:
    state = machine.state
    segment = shmget(state, KEY, 3 * PAGE_SIZE, CREATE)
    first, second = machine.spawn(), machine.spawn()
    here = shmat(state, first, segment, 0, 0)
    there = shmat(state, second, segment, BASE, 0)
    assert there == BASE
    pfn = machine.write(first, here + PAGE_SIZE, 5)
    assert machine.read(second, there + PAGE_SIZE) == pfn
    assert stat(machine, segment) == (3 * PAGE_SIZE, 2, 1)
    assert state.vm_stat[VmStat.NR_SHMEM] == 1
    check(state)


def test_a_segment_stays_without_processes_and_goes_once_removed(machine: VmMachine) -> None:
    state = machine.state
    free_at_start = machine.nr_free()
    segment = shmget(state, KEY, 2 * PAGE_SIZE, CREATE)
    mm = machine.spawn()
    machine.write(mm, shmat(state, mm, segment, BASE, 0), 1)
    machine.exit(mm)
    assert stat(machine, segment) == (2 * PAGE_SIZE, 0, 1)
    assert shm_remove(state, segment) == 0
    assert shm_stat(state, segment) == Errno.EINVAL
    assert state.vm_stat[VmStat.NR_SHMEM] == state.vm_stat[VmStat.NR_COMMITTED] == 0
    assert machine.nr_free() == free_at_start
    check(state)


def test_a_removed_segment_lives_as_long_as_it_is_attached_but_its_key_finds_another(
    machine: VmMachine,
) -> None:
    state = machine.state
    segment = shmget(state, KEY, PAGE_SIZE, CREATE)
    parent = machine.spawn()
    shmat(state, parent, segment, BASE, 0)
    machine.write(parent, BASE, 1)
    child = machine.fork(parent)
    assert shm_remove(state, segment) == shm_remove(state, segment) == 0
    assert stat(machine, segment) == (PAGE_SIZE, 2, 1)
    assert shmget(state, KEY, PAGE_SIZE, CREATE) != segment
    assert shmdt(state, parent, BASE) == 0
    assert machine.read(child, BASE) != NIL
    machine.exit(child)
    assert shm_stat(state, segment) == Errno.EINVAL
    assert state.vm_stat[VmStat.NR_SHMEM] == 0
    check(state)


def test_attaching_and_detaching_refuse_what_linux_refuses(machine: VmMachine) -> None:
    state = machine.state
    segment = shmget(state, KEY, 4 * PAGE_SIZE, CREATE)
    mm = machine.spawn()
    assert shmat(state, mm, segment + 1, 0, 0) == Errno.EINVAL
    assert shmat(state, mm, segment, BASE + 1, 0) == Errno.EINVAL
    assert shmat(state, mm, segment, BASE + 1, ShmFlag.SHM_RND) == BASE
    assert shmat(state, mm, segment, BASE + PAGE_SIZE, 0) == Errno.EINVAL
    assert shmat(state, mm, segment, 0, ShmFlag.SHM_REMAP) == Errno.EINVAL
    assert shmat(state, mm, segment, BASE + PAGE_SIZE, ShmFlag.SHM_REMAP | ShmFlag.SHM_RDONLY) > 0
    assert machine.write(mm, BASE + PAGE_SIZE, 1) == NIL
    assert machine.write(mm, BASE, 1) != NIL
    assert shmdt(state, mm, BASE + 2 * PAGE_SIZE) == Errno.EINVAL
    assert shmdt(state, mm, BASE + PAGE_SIZE) == 0
    assert stat(machine, segment)[1] == 1
    check(state)


def test_all_that_is_left_of_an_attached_segment_is_detached(machine: VmMachine) -> None:
    state = machine.state
    segment = shmget(state, KEY, 5 * PAGE_SIZE, CREATE)
    mm = machine.spawn()
    shmat(state, mm, segment, BASE, 0)
    machine.unmap(mm, BASE, 1)
    machine.unmap(mm, BASE + 2 * PAGE_SIZE, 1)
    assert stat(machine, segment)[1] == 2
    assert shmdt(state, mm, BASE) == 0
    assert stat(machine, segment)[1] == state.mm[mm].total_vm == 0
    check(state)


def test_areas_of_one_segment_never_merge(machine: VmMachine) -> None:
    state = machine.state
    segment = shmget(state, KEY, 2 * PAGE_SIZE, CREATE)
    mm = machine.spawn()
    for page in range(2):
        map_at(machine, mm, BASE + page * PAGE_SIZE, 1, (segment, page), shared=True)
    assert state.mm[mm].nr_vmas == 2
    check(state)


def test_there_are_no_more_segments_than_shmmni(machine: VmMachine) -> None:
    state = machine.state
    # Made by hand: as many calls would take long.
    records = slice(1, SHMMNI + 1)
    np.asarray(state.inode)["refcount"][records] = 1
    np.asarray(state.inode)["shm_kind"][records] = ShmKind.SYSV
    state.pool[Pool.INODE].mark = SHMMNI + 1
    assert shmget(state, IPC_PRIVATE, 1, 0) == Errno.ENOSPC
    state.inode[1].refcount = 0
    assert shmget(state, IPC_PRIVATE, 1, 0) == SHMMNI + 1


def test_a_posix_object_has_the_size_it_is_given_and_its_pages_go_with_its_end(machine: VmMachine) -> None:
    state = machine.state
    name = 77
    assert shm_open(state, name, 0) == Errno.ENOENT
    inode = shm_open(state, name, CREATE)
    assert shm_open(state, name, CREATE | ShmFlag.IPC_EXCL) == Errno.EEXIST
    assert shm_open(state, name, 0) == inode
    mm = machine.spawn()
    map_at(machine, mm, BASE, 4, (inode, 0), shared=True)
    assert machine.write(mm, BASE, 1) == NIL  # it is empty
    assert shm_truncate(state, inode, 4 * PAGE_SIZE) == 0
    for page in range(4):
        machine.write(mm, BASE + page * PAGE_SIZE, page + 1)
    assert state.vm_stat[VmStat.NR_SHMEM] == state.mm[mm].nr_shmem == 4
    assert shm_truncate(state, inode, 2 * PAGE_SIZE) == 0
    assert state.vm_stat[VmStat.NR_SHMEM] == state.mm[mm].nr_shmem == 2
    assert machine.read(mm, BASE + 2 * PAGE_SIZE) == NIL
    check(state)
    assert shm_unlink(state, name) == 0
    assert shm_unlink(state, name) == Errno.ENOENT
    assert machine.read(mm, BASE) != NIL
    machine.exit(mm)
    assert state.vm_stat[VmStat.NR_SHMEM] == state.vm_stat[VmStat.NR_COMMITTED] == 0
    check(state)
