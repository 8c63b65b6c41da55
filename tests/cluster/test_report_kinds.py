"""What a report says of how faults ended and of the kinds of frames."""

import re

import numpy as np

from cluster.report_data import History
from cluster.report_faults import add_fault_tree
from cluster.report_frames import add_frame_kinds
from cluster.report_page import Page


def history(**last: int) -> History:
    values = {name.replace("__", "."): np.array([0, value], np.int64) for name, value in last.items()}
    return History(np.array([1, 2], np.int64), values)


def rows(page: Page) -> list[list[str]]:
    """Return the cells of the tables of a page, without their indentation."""
    return [
        [cell.strip("\u2003") for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]
        for row in re.findall(r"<tr>(.*?)</tr>", page.html())
    ]


def test_a_question_counts_what_its_answers_do() -> None:
    page = Page("page")
    counted = history(fault__anon_zero_page=1200, fault__anon_new_page=30, fault__bad_area=4)
    add_fault_tree(page, "m", counted)
    told = rows(page)
    assert told[1][1] == "1,234"
    assert ["no: map the page of zeroes, read-only", "1,200"] in told
    assert ["yes: a frame of zeroes", "30"] in told
    assert ["no: SIGSEGV, SEGV_MAPERR", "4"] in told
    assert ["none: anonymous area?", "1,230"] in told
    assert ["no: in kernel mode?", "4"] in told
    assert ["yes: oops", "0"] not in told


def test_a_machine_without_faults_has_no_tree() -> None:
    page = Page("page")
    add_fault_tree(page, "m", history(pgfault=3))
    assert rows(page) == []


def test_kinds_of_frames_are_sizes_and_shares() -> None:
    page = Page("page")
    uses = {"frames__use__free": 256, "frames__use__anon": 768, "frames__swappable__anonymous__shared": 512}
    add_frame_kinds(page, "m", history(**uses))
    told = [[cell.replace("\u00a0", " ") for cell in row] for row in rows(page)]
    assert ["unreclaimable", "free", "1 MiB", "25 %"] in told
    assert ["swappable", "anonymous pages", "3 MiB", "75 %"] in told
    assert ["of swappable", "anonymous, mapped by several", "2 MiB", "50 %"] in told
    assert not any("mapped once" in row[1] for row in told)


def test_a_run_that_did_not_count_frames_has_no_table_of_them() -> None:
    page = Page("page")
    add_frame_kinds(page, "m", history(nr_anon_pages=3))
    assert rows(page) == []
