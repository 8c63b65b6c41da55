"""The driver's text, read into counters."""

import pytest

from tests.kernel.errors import BootError
from tests.kernel.recording import parse_run

TEXT = """
= machine /proc version
Linux version 6.1.0
= sysctl swappiness
60
= snapshot boot 1500
= file vmstat
nr_anon_pages 1664
pgfault 1700
= snapshot one 1600
= file vmstat
nr_anon_pages 1700
pgfault 1755
= file meminfo
MemTotal:         468416 kB
HugePages_Total:       0
= file buddyinfo
Node 0, zone      DMA      0      1      2
= file swaps
Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority
/dev/vdb                                partition\t262140\t\t8240\t\t-2
= ksm full_scans
3
= blk vda stat
     1120        7    35000      200       12        0       96        1        0      300      201
= proc A stat
77 (a name) with) S 1 0 0 0 -1 4194304 55 0 2 0 0 0
= proc A status
Name:\tinit
VmPTE:\t      28 kB
RssAnon:\t     404 kB
= proc A smaps_rollup
00400000-7ffffffff000 ---p 00000000 00:00 0    [rollup]
Rss:                1208 kB
= proc A oom_score
668
= map A h
pages 8
present 3
= mincore /mnt/f16
0 12
64 4
= died B 9
= end
"""


def test_each_section_gives_the_goldens_names() -> None:
    run = parse_run(TEXT)
    assert [(snapshot.name, snapshot.t_ms) for snapshot in run.snapshots] == [("boot", 1500), ("one", 1600)]
    assert run.snapshots[1].values == {
        "vmstat.nr_anon_pages": 1700,
        "vmstat.pgfault": 1755,
        "meminfo.MemTotal": 468416,
        "meminfo.HugePages_Total": 0,
        "buddy.DMA.order0": 0,
        "buddy.DMA.order1": 1,
        "buddy.DMA.order2": 2,
        "swaps.vdb.used_kb": 8240,
        "ksm.full_scans": 3,
        "blk.vda.reads": 1120,
        "blk.vda.read_sectors": 35000,
        "blk.vda.writes": 12,
        "blk.vda.write_sectors": 96,
        "proc.A.dead": 0,
        "proc.A.minflt": 55,
        "proc.A.majflt": 2,
        "proc.A.VmPTE": 28,
        "proc.A.RssAnon": 404,
        "proc.A.smaps.Rss": 1208,
        "proc.A.oom_score": 668,
        "proc.A.map.h.pages": 8,
        "proc.A.map.h.present": 3,
        "mincore.f16.resident": 16,
        "mincore.f16.nruns": 2,
    }


def test_deaths_say_after_which_snapshot() -> None:
    assert parse_run(TEXT).deaths == [{"process": "B", "signal": 9, "after": "one"}]


def test_a_process_that_ended_by_itself_leaves_no_counter() -> None:
    values = [
        parse_run(TEXT.replace("= end\n", f"= proc {name} dead\n= end\n")).snapshots[-1].values
        for name in ("B", "C")
    ]
    assert [{key for key in some if key.endswith("dead")} for some in values] == [
        {"proc.A.dead", "proc.B.dead"},
        {"proc.A.dead"},
    ]


def test_carriage_returns_of_the_serial_line_are_no_part_of_it() -> None:
    assert parse_run(TEXT.replace("\n", "\r\n")) == parse_run(TEXT)


def test_output_without_an_end_is_an_error() -> None:
    with pytest.raises(BootError, match="has no end"):
        parse_run(TEXT.replace("= end\n", ""))


def test_what_the_driver_gave_up_on_names_the_line() -> None:
    with pytest.raises(BootError, match=r"^line 12: mmap: error 12$"):
        parse_run("= snapshot boot 1\n\n= error 12\nmmap: error 12\n= end\n")
