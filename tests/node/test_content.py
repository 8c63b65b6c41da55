"""Content ids, against real pages of 4096 bytes: ids are equal exactly where bytes are."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.content import (
    PATTERN_HALF,
    PATTERN_TEXT,
    PATTERN_UNIQUE,
    copy_content,
    generated,
    same_filled,
    set_content,
    write_first_byte,
    write_word,
)
from node.counters import Knob
from node.state import State
from shared.constants import INT64_MAX, INT64_MIN, PAGE_SIZE
from shared.jit import entry
from tests.models.page_bytes import Pattern, with_first_byte

pytestmark = pytest.mark.three_ways

KINDS = {"unique": PATTERN_UNIQUE, "half": PATTERN_HALF, "text": PATTERN_TEXT}
PATTERNS = st.one_of(
    st.builds(Pattern, st.just("same"), st.one_of(st.integers(0, 3), st.integers(INT64_MIN, INT64_MAX))),
    st.builds(Pattern, st.sampled_from(sorted(KINDS)), st.integers(0, 2), st.integers(0, 3)),
)
BYTES = st.one_of(st.integers(0, 2), st.integers(0, 255))


@entry
def fill_same(state: State, pfn: int, value: int) -> None:
    set_content(state, pfn, same_filled(value))


@entry
def fill_generated(state: State, kind: int, seed: int, index: int) -> None:
    set_content(state, 0, generated(kind, seed, index))


@entry
def write_byte_at(state: State, pfn: int, value: int) -> None:
    write_first_byte(state, pfn, value)


@entry
def write_word_at(state: State, pfn: int, word: int) -> None:
    write_word(state, pfn, word)


@entry
def copy_frame(state: State, to_pfn: int, from_pfn: int) -> None:
    copy_content(state, to_pfn, from_pfn)


@pytest.fixture(scope="module")
def state() -> State:
    return State(**dict.fromkeys(State.LAYOUT, 2) | {"panic": 4, "knob": Knob.NR})


def fill(state: State, pattern: Pattern) -> int:
    """Fill frame 0; return its content id."""
    if pattern.kind == "same":
        fill_same(state, 0, pattern.seed)
    else:
        fill_generated(state, KINDS[pattern.kind], pattern.seed, pattern.index)
    return int(state.page[0].content)


@given(st.lists(st.tuples(PATTERNS, st.lists(BYTES, max_size=3)), min_size=2, max_size=6))
def test_ids_are_equal_exactly_where_bytes_are(state: State, pages: list[tuple[Pattern, list[int]]]) -> None:
    made = []
    for pattern, writes in pages:
        page = pattern.page()
        fill(state, pattern)
        for value in writes:
            write_byte_at(state, 0, value)
            page = with_first_byte(page, value)
        assert len(page) == PAGE_SIZE
        made.append((page, int(state.page[0].content)))
    for (page_a, id_a), (page_b, id_b) in combinations(made, 2):
        assert (page_a == page_b) == (id_a == id_b)


def test_the_page_of_zeroes_is_id_0(state: State) -> None:
    assert Pattern("same", 0).page() == bytes(PAGE_SIZE)
    assert fill(state, Pattern("same", 0)) == 0


@given(PATTERNS, BYTES)
def test_undoing_a_write_restores_the_id(state: State, pattern: Pattern, value: int) -> None:
    before = fill(state, pattern)
    write_byte_at(state, 0, value)
    write_byte_at(state, 0, pattern.page()[0])
    assert state.page[0].content == before
    assert state.page[0].word == 0


@given(PATTERNS, st.integers(0, 2**31 - 1))
def test_a_word_changes_the_id_and_word_0_restores_it(state: State, pattern: Pattern, word: int) -> None:
    before = fill(state, pattern)
    write_word_at(state, 0, word)
    assert (state.page[0].content == before) == (word == 0)
    write_word_at(state, 0, 0)
    assert state.page[0].content == before


@given(PATTERNS, BYTES, BYTES)
def test_a_copy_holds_the_same_and_goes_its_own_way(
    state: State, pattern: Pattern, first: int, second: int
) -> None:
    fill(state, pattern)
    write_byte_at(state, 0, first)
    copy_frame(state, 1, 0)
    assert state.page[1].content == state.page[0].content
    write_byte_at(state, 1, second)
    assert (state.page[1].content == state.page[0].content) == (first == second)
