"""A real host's ksmd over real guests: the simulated one ends with the same counters, by the same way."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from tests.study.ksm_study import (
    FINAL,
    FOLDER,
    FROZEN,
    Counts,
    at,
    perfect,
    processes,
    recorded,
    run_frozen,
)

pytestmark = pytest.mark.slow

# ksmd had nothing left to do after the second scan; the rest of the recording shows that it stays so.
FOUR_SCANS = 4 * 177_383 + 1000
# Pages of zeroes in the recorded host's huge pages, present until ksmd split them (see the folder's README).
LOST_WITH_HUGE_PAGES = 245


@pytest.fixture(scope="module")
def samples() -> list[Counts]:
    return run_frozen(FOUR_SCANS)


def test_the_pages_are_those_that_the_host_counted() -> None:
    said = json.loads((FOLDER / f"{FROZEN}.json").read_text())["ideal_end"]
    found = processes()
    present = [process.contents[process.present] for process in found]
    assert sum(len(contents) for contents in present) == said["present_pages"] == 177_383
    assert len(np.unique(np.concatenate(present))) == said["distinct"]
    assert [len(contents) for contents in present] == [34_947, 41_376, 43_177, 57_883]


def test_the_frozen_run_ends_with_the_recorded_counters(samples: list[Counts]) -> None:
    last = asdict(samples[-1])
    assert {name: last[name] for name in FINAL} == FINAL
    # The recorder caught a page in the hands of ksmd in its very last row.
    settled = [row for row in recorded() if row.pages_volatile == 0 and row.full_scans > 1]
    assert {name: asdict(settled[-2])[name] for name in FINAL} == FINAL


def test_the_frozen_run_ends_with_perfect_sharing(samples: list[Counts]) -> None:
    wanted = perfect([process.contents[process.present] for process in processes()], 256)
    last = asdict(samples[-1])
    assert {name: last[name] for name in wanted} == wanted


def test_the_first_scan_only_takes_checksums(samples: list[Counts]) -> None:
    first = [sample for sample in samples if sample.full_scans == 0 and sample.pages_scanned < 177_000]
    assert all(sample.pages_shared == sample.pages_unshared == 0 for sample in first)
    assert all(sample.pages_volatile == sample.pages_scanned for sample in first)


def test_full_scans_end_where_the_recorded_ones_did(samples: list[Counts]) -> None:
    ends: dict[int, int] = {}
    for sample in samples:
        ends.setdefault(sample.full_scans, sample.pages_scanned)
    assert ends[1] == 177_383
    assert ends[2] == 2 * 177_383


def test_counters_at_equal_pages_scanned_are_within_the_huge_pages_of_the_recorded_ones(
    samples: list[Counts],
) -> None:
    for row in recorded():
        if row.pages_scanned > FOUR_SCANS:
            break
        here = at(samples, row.pages_scanned)
        for name in FINAL:
            assert abs(getattr(here, name) - getattr(row, name)) <= LOST_WITH_HUGE_PAGES, (row, name)
