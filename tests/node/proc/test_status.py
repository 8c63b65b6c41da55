"""/proc/PID/status and statm: sizes of a process."""

from node.proc.areas import Names
from node.proc.status import statm, status
from node.vm.vma import VmFlag
from shared.constants import PAGE_SIZE
from tests.node.proc.process_machine import ProcessMachine


def busy() -> tuple[ProcessMachine, int]:
    """Return a process with 2 of 10 anonymous pages, one of 3 shared ones and one of 4 of a file."""
    machine = ProcessMachine()
    mm = machine.spawn()
    vaddr = machine.map(mm, 10)
    for page in range(2):
        machine.write(mm, vaddr + page * PAGE_SIZE, 1)
    machine.write(mm, machine.map_shared(mm, 3), 1)
    machine.write(mm, machine.map_shared(mm, 4, machine.file(4)), 1)
    return machine, mm


def test_lines_have_linux_s_form() -> None:
    machine, mm = busy()
    assert status(machine.state, mm, Names(processes={"A": mm})) == (
        f"Name:\tA\nTgid:\t{mm}\nPid:\t{mm}\n"
        "VmPeak:\t      68 kB\nVmSize:\t      68 kB\nVmLck:\t       0 kB\nVmRSS:\t      16 kB\n"
        "RssAnon:\t       8 kB\nRssFile:\t       4 kB\nRssShmem:\t       4 kB\nVmData:\t      40 kB\n"
        "VmStk:\t       0 kB\nVmExe:\t       0 kB\nVmLib:\t       0 kB\nVmPTE:\t      12 kB\n"
        "VmSwap:\t       0 kB\nHugetlbPages:\t       0 kB\n"
    )


def test_a_process_without_a_name_has_no_line_for_it() -> None:
    machine, mm = busy()
    assert status(machine.state, mm, Names()).startswith("Tgid:")


def test_text_is_split_from_libraries_by_where_the_code_ends() -> None:
    machine = ProcessMachine()
    mm = machine.spawn()
    machine.map(mm, 6, VmFlag.READ | VmFlag.EXEC)
    machine.state.mm[mm].start_code = 0x400000
    machine.state.mm[mm].end_code = 0x401001
    lines = status(machine.state, mm, Names())
    assert "VmExe:\t       8 kB\nVmLib:\t      16 kB\n" in lines
    assert statm(machine.state, mm, Names()) == "6 0 0 2 0 0 0\n"


def test_the_peak_stays() -> None:
    machine, mm = busy()
    vaddr = machine.map(mm, 100)
    machine.unmap(mm, vaddr, 100)
    lines = status(machine.state, mm, Names())
    assert "VmPeak:\t     468 kB\nVmSize:\t      68 kB\n" in lines


def test_statm_is_in_pages() -> None:
    machine, mm = busy()
    assert statm(machine.state, mm, Names()) == "17 4 2 0 0 10 0\n"
