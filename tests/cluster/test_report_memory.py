"""The picture of memory in the report: what the page holds. How it is drawn, test_report_in_browser.py looks at."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.looks import MEMORY
from cluster.report import write_report
from cluster.report_memory import USES, encode_changes
from shared.look import Use
from tests.cluster.report_runs import DMA_CELLS, NR_CELLS, write_interrupted_run, write_run

PICTURE_COUNT = 2 + 2  # hosts and plain machines of the study; guests have none


def pictures(page: str) -> dict[str, dict[str, Any]]:
    found = re.search(r'id="pictures">(.*?)</script>', page)
    parsed: dict[str, dict[str, Any]] = {} if found is None else json.loads(found[1])
    return parsed


def unpack(packed: list[str], nr_cells: int) -> list[list[int]]:
    """Undo ``encode_changes``, a byte at a time."""
    now, moments = [0] * nr_cells, []
    for text in packed:
        runs = base64.b64decode(text)
        at = 0
        for length, change in zip(runs[::2], runs[1::2], strict=True):
            for _ in range(length + 1):
                now[at] ^= change
                at += 1
        assert at == nr_cells
        moments.append(list(now))
    return moments


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("memory") / "run")


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return write_report(run).read_text()


def test_hosts_and_machines_have_a_picture_at_every_sampled_time(page: str) -> None:
    found = pictures(page)
    assert len(found) == PICTURE_COUNT
    for name, picture in found.items():
        assert f'<figure class="panel picture" id="{name}">' in page
        assert [time.replace("\u00a0", " ") for time in picture["times"]] == [f"{n}0 s" for n in range(1, 7)]
        assert [zone["cells"] for zone in picture["zones"]] == [DMA_CELLS, NR_CELLS - DMA_CELLS]


def test_the_page_holds_what_the_run_sampled(page: str) -> None:
    packed = next(iter(pictures(page).values()))["cells"]
    moments = unpack(packed, NR_CELLS)
    assert moments[0][:43] == [Use.RESERVED, *[Use.USER] * 40, Use.FREE | 8 << 4, Use.FREE | 9 << 4]
    assert moments[-1] == [Use.RESERVED, *[Use.USER] * (NR_CELLS - 1)]


def test_what_changes_little_takes_little_room(page: str) -> None:
    packed = next(iter(pictures(page).values()))["cells"]
    assert all(len(text) < NR_CELLS for text in packed[1:])


def test_zones_and_colours_have_words(page: str) -> None:
    assert "Node 0, zone DMA32" in page
    assert 'role="img" aria-label="Physical memory of plain-0: Node 0, zone DMA, 0' in page
    for use in (Use.RESERVED, Use.FREE, Use.USER):
        assert f"</i>{USES[use][1]}</li>" in page
    assert "</i>slab</li>" not in page


def test_every_use_has_a_colour_of_the_style_sheet(page: str) -> None:
    assert set(USES) == set(Use)
    for colour, _ in USES.values():
        assert re.search(rf"{colour}: #[0-9a-f]{{6}};", page), colour


def test_an_interrupted_run_shows_what_its_checkpoints_hold(tmp_path: Path) -> None:
    page = write_report(write_interrupted_run(tmp_path / "run", seconds=20)).read_text()
    assert [len(picture["times"]) for picture in pictures(page).values()] == [2] * PICTURE_COUNT


def test_a_run_without_pictures_has_a_report_all_the_same(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / MEMORY).unlink()
    assert pictures(write_report(run).read_text()) == {}


def moments_of(nr_cells: int) -> st.SearchStrategy[list[list[int]]]:
    cells = st.lists(st.integers(0, 255), min_size=nr_cells, max_size=nr_cells)
    return st.lists(cells, min_size=1, max_size=4)


@given(st.integers(1, 600).flatmap(moments_of))
def test_changes_are_undone_by_what_the_page_does(moments: list[list[int]]) -> None:
    packed = encode_changes([np.array(moment, np.uint8) for moment in moments])
    assert unpack(packed, len(moments[0])) == moments
