"""/proc/PID/maps: lines as Linux prints them."""

from node.proc.areas import Names
from node.proc.maps import maps
from node.vm.vma import VmFlag
from shared.constants import PAGE_SIZE
from tests.node.proc.process_machine import ProcessMachine


def test_anonymous_memory_has_no_name_and_a_space_at_the_end() -> None:
    machine = ProcessMachine()
    mm = machine.spawn()
    start = machine.map(mm, 4)
    assert maps(machine.state, mm, Names()) == f"{start:x}-{start + 4 * PAGE_SIZE:x} rw-p 00000000 00:00 0 \n"


def test_a_process_without_areas_has_an_empty_file() -> None:
    machine = ProcessMachine()
    assert maps(machine.state, machine.spawn(), Names()) == ""


def test_the_heap_is_named_at_column_73_and_addresses_have_at_least_eight_digits() -> None:
    machine = ProcessMachine()
    mm = machine.spawn()
    machine.grow_heap(mm, 2)
    line = maps(machine.state, mm, Names())
    assert line == "00600000-00602000 rw-p 00000000 00:00 0 " + " " * 33 + "[heap]\n"
    assert line.index("[heap]") == 73


def test_the_area_of_start_stack_is_the_stack() -> None:
    machine = ProcessMachine()
    mm = machine.spawn()
    start = machine.map(mm, 4, VmFlag.READ | VmFlag.WRITE | VmFlag.GROWSDOWN)
    machine.state.mm[mm].start_stack = start + 3 * PAGE_SIZE
    machine.map(mm, 1, VmFlag.READ)
    lines = maps(machine.state, mm, Names()).splitlines()
    assert [line.split()[5:] for line in lines] == [[], ["[stack]"]]
    assert lines[0].split()[1] == "r--p"


def test_a_file_has_its_path_place_and_device() -> None:
    machine = ProcessMachine()
    mm = machine.spawn()
    inode = machine.file(16)
    start = machine.map_shared(mm, 2, inode, first=3)
    names = Names(paths={inode: "/mnt/f16"})
    line = maps(machine.state, mm, names)
    assert line.split() == [
        f"{start:x}-{start + 2 * PAGE_SIZE:x}",
        "rw-s",
        "00003000",
        "fe:00",
        str(inode),
        "/mnt/f16",
    ]
    assert maps(machine.state, mm, Names()).split()[5] == f"inode:[{inode}]"


def test_shared_anonymous_memory_is_a_deleted_file() -> None:
    machine = ProcessMachine()
    mm = machine.spawn()
    machine.map_shared(mm, 2)
    line = maps(machine.state, mm, Names())
    assert line.endswith(" /dev/zero (deleted)\n")
    assert line.split()[1:4] == ["rw-s", "00000000", "00:01"]


def test_lines_ascend() -> None:
    machine = ProcessMachine()
    mm = machine.spawn()
    machine.map(mm, 1)
    machine.map_shared(mm, 1)
    machine.grow_heap(mm, 1)
    starts = [int(line.split("-")[0], 16) for line in maps(machine.state, mm, Names()).splitlines()]
    assert starts == sorted(starts)
    assert len(starts) == 3
