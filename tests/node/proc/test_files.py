"""Which files of /proc a machine has, and by which paths."""

import pytest

from node.machine import Machine
from node.proc import files
from node.spec import MachineSpec
from shared.constants import MIB
from shared.look import decode_look

PROGRAM = "spawn A\nA: mmap h 1M\nA: write h\nA: fork C\nC: write h\nsnapshot written\n"


@pytest.fixture
def machine() -> Machine:
    machine = Machine(MachineSpec(memory_bytes=64 * MIB))
    machine.run_program(PROGRAM)
    return machine


def test_a_process_goes_by_its_number_and_its_name(machine: Machine) -> None:
    assert machine.names.processes == {"A": 1, "C": 2}
    for file in ("maps", "smaps", "smaps_rollup", "status", "statm"):
        assert machine.proc(f"/proc/C/{file}") == machine.proc(f"/proc/2/{file}") != ""
    assert machine.proc("/proc/C/status").startswith("Name:\tC\n")


@pytest.mark.parametrize(
    "path", ["/proc/3/maps", "/proc/0/maps", "/proc/B/maps", "/proc/1/environ", "/proc/1/pagemap", "/proc/1"]
)
def test_what_is_not_there_or_no_text_is_a_key_error(machine: Machine, path: str) -> None:
    with pytest.raises(KeyError):
        machine.proc(path)


def test_binary_files_are_read_by_offset_and_length(machine: Machine) -> None:
    assert len(machine.proc_bytes("/proc/kpageflags", 8 * 100, 80)) == 80
    whole = machine.proc_bytes("/proc/kpagecount", 0, 8 * 16384)
    assert machine.proc_bytes("/proc/kpagecount", 8 * 5000, 800) == whole[8 * 5000 : 8 * 5100]
    start = int(machine.proc("/proc/A/maps").split("-")[0], 16)
    assert machine.proc_bytes("/proc/A/pagemap", start // 4096 * 8, 8)[7] & 0x80


@pytest.mark.parametrize("at", [(4, 8), (0, 4), (-8, 8)])
def test_a_part_of_a_word_is_refused(machine: Machine, at: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="is not a multiple of 8"):
        machine.proc_bytes("/proc/kpageflags", *at)


def test_a_look_has_the_files_of_processes(machine: Machine) -> None:
    texts = decode_look(machine.look()).proc
    assert {"/proc/1/maps", "/proc/1/smaps", "/proc/2/smaps_rollup", "/proc/2/status"} <= set(texts)
    assert texts["/proc/2/smaps"] == machine.proc("/proc/2/smaps")


def test_a_look_leaves_out_what_takes_long(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_SAMPLED_PAGES", 511)
    texts = decode_look(machine.look()).proc
    assert "/proc/1/status" in texts
    assert "/proc/1/smaps" not in texts
    monkeypatch.setattr(files, "MAX_SAMPLED_PROCESSES", 1)
    texts = decode_look(machine.look()).proc
    assert "/proc/1/maps" in texts
    assert "/proc/2/maps" not in texts
