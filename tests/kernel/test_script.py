"""Workload files, checked and unrolled for the driver."""

import pytest

from node.program.text import ProgramError
from tests.kernel.script import parse_workload, whole_script


def test_loops_are_unrolled_and_lines_keep_their_numbers() -> None:
    workload = parse_workload(
        "w", "spawn A\nrepeat 2\nA: mmap h$i 1P*$i+1P\nA&: write h$i val=3\nend\nsnapshot s\n"
    )
    assert workload.script == (
        "1 - spawn A",
        "3 A mmap h0 1P*0+1P",
        "4 A& write h0 val=3",
        "3 A mmap h1 1P*1+1P",
        "4 A& write h1 val=3",
        "6 - snapshot s",
    )
    assert workload.snapshots == ("s",)


def test_the_machine_is_prepared_before_the_first_line() -> None:
    text = "#! swap: disk:64M\n#! rotational: 0\n#! sysctl: vm.page-cluster=2\n#! thp: madvise\nspawn A\n"
    lines = whole_script(parse_workload("w", text), ["/modules/virtio_blk.ko"]).splitlines()
    begin = lines.index("0 - begin")
    assert lines[begin + 1 :] == ["5 - spawn A"]
    for line in (
        "load /modules/virtio_blk.ko",
        "mount /dev/vda /mnt ext4",
        "set /sys/block/vdb/queue/rotational 0",
        "swapon /dev/vdb",
        "set /proc/sys/vm/page-cluster 2",
        "set /sys/kernel/mm/transparent_hugepage/enabled madvise",
    ):
        assert f"0 - {line}" in lines[:begin]


def test_without_a_data_disk_swap_is_the_first_disk() -> None:
    text = whole_script(parse_workload("w", "#! data: no\n#! swap: disk:64M\n"), [])
    assert "swapon /dev/vda" in text
    assert "mount" not in text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("cgroup g memory.max=48M\n", "line 1: cgroups are not recorded"),
        ("spawn A cg=g\n", "line 1: cg=g: cgroups are not recorded"),
        ("#! swap: zram:128M\n", "header: swap on zram is not recorded"),
        ("#! zswap: enabled=1\n", "header: zswap is not recorded"),
        ("#! colour: red\n", "header: colour is none of"),
        ("#! mem: lots\n", "header: mem: 'lots' is not a size"),
        ("#! smp: 0\n", "header: smp: 0 is not between"),
        ("dance\n", "line 1: there is no command 'dance'"),
        ("spawn A\nA: dance\n", "line 2: there is no command 'dance' of a process"),
        ("A: mmap h 8Q\n", "line 1: '8Q' is not a number"),
        ("A: mmap h\n", "line 1: mmap needs more words"),
        ("A: write h len=x\n", "line 1: 'x' is not a number"),
        ("repeat 3\nspawn A\n", "line 1: repeat without end"),
    ],
)
def test_what_cannot_be_recorded_is_said_in_one_line(text: str, reason: str) -> None:
    with pytest.raises(ProgramError) as caught:
        parse_workload("w", text)
    assert str(caught.value).startswith(reason)
    assert "\n" not in str(caught.value)
