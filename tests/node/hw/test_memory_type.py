"""Memory types: IA32_PAT, the bits of an entry that choose from it, and what an access costs."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from node.counters import Current
from node.hw.cost import Cost, cost_table_ps
from node.hw.memory_type import LINUX_PAT, POWER_ON_PAT, MemoryType
from node.hw.paging import AccessKind
from node.hw.pte import Pte
from node.hw.registers import REFUSED
from node.state import State
from shared.wrap64 import to_signed
from tests.models.memory_type import CACHED, NAMES, index_of, types_of
from tests.node.hw.memory_type_entries import (
    do_access_cost_ps,
    do_is_cached,
    do_is_valid_pat,
    do_leaf_pat_index,
    do_memory_type,
    do_type_extra_ps,
    do_write_pat,
)

pytestmark = pytest.mark.three_ways

WORDS = st.integers(-(2**63), 2**63 - 1)
# Values that differ from a good one in a field or two.
PATS = st.lists(st.sampled_from(sorted(NAMES)) | st.integers(0, 255), min_size=8, max_size=8).map(
    lambda fields: to_signed(int.from_bytes(bytes(fields), "little"))
)
GOOD_PATS = st.lists(st.sampled_from(sorted(NAMES)), min_size=8, max_size=8).map(
    lambda fields: int.from_bytes(bytes(fields), "little")
)


@pytest.fixture
def state() -> State:
    made = State(
        **dict.fromkeys(State.LAYOUT, 1) | {"panic": 4, "current": Current.NR, "cost": Cost.NR, "cpu": 2}
    )
    np.asarray(made.cost)[:] = cost_table_ps(Fraction(1), {})
    return made


def test_the_register_at_power_on_and_under_linux() -> None:
    assert f"{POWER_ON_PAT:016x}" == "0007040600070406"
    assert types_of(POWER_ON_PAT) == ["WB", "WT", "UC-", "UC", "WB", "WT", "UC-", "UC"]
    assert f"{LINUX_PAT:016x}" == "0407050600070106"
    assert types_of(LINUX_PAT) == ["WB", "WC", "UC-", "UC", "WB", "WP", "UC-", "WT"]


@given(PATS | WORDS)
@example(0)
@example(-1)
def test_exactly_the_defined_types_are_taken(value: int) -> None:
    state = State(**dict.fromkeys(State.LAYOUT, 1) | {"panic": 4, "current": Current.NR})
    state.cpu[0].pat = LINUX_PAT
    taken = types_of(value) is not None
    assert do_is_valid_pat(state, value) == taken
    assert do_write_pat(state, value) == (0 if taken else REFUSED)
    assert state.cpu[0].pat == (value if taken else LINUX_PAT)


@pytest.mark.parametrize("field", range(8))
def test_a_reserved_type_is_refused_in_every_field(state: State, field: int) -> None:
    taken = [do_is_valid_pat(state, to_signed(kind << 8 * field)) for kind in range(256)]
    assert [kind for kind, good in enumerate(taken) if good] == sorted(NAMES)


def test_each_cpu_has_a_register_of_its_own(state: State) -> None:
    state.current[Current.CPU] = 1
    do_write_pat(state, LINUX_PAT)
    assert [state.cpu[cpu].pat for cpu in (0, 1)] == [0, LINUX_PAT]


@given(WORDS, st.booleans())
def test_three_bits_of_an_entry_are_the_index(word: int, is_large: bool) -> None:
    state = State(**dict.fromkeys(State.LAYOUT, 1) | {"panic": 4})
    assert do_leaf_pat_index(state, word, int(is_large)) == index_of(word, is_large=is_large)


def test_the_size_bit_of_a_large_page_is_not_its_pat(state: State) -> None:
    assert do_leaf_pat_index(state, Pte.PRESENT | Pte.HUGE, 1) == 0
    assert do_leaf_pat_index(state, Pte.PRESENT | Pte.HUGE, 0) == 4
    assert do_leaf_pat_index(state, Pte.PRESENT | Pte.HUGE | Pte.PAT_LARGE, 1) == 4


@given(GOOD_PATS, st.integers(0, 7))
def test_the_index_chooses_a_field(pat: int, index: int) -> None:
    state = State(**dict.fromkeys(State.LAYOUT, 1) | {"panic": 4})
    types = types_of(pat)
    assert types is not None
    assert NAMES[do_memory_type(state, pat, index)] == types[index]


@pytest.mark.parametrize("kind", list(MemoryType))
def test_what_the_cache_serves_costs_a_cached_access(state: State, kind: MemoryType) -> None:
    reads, writes = CACHED[NAMES[kind]]
    assert [do_is_cached(state, kind, write) for write in (0, 1)] == [reads, writes]
    cached, uncached = state.cost[Cost.MEMORY_ACCESS], state.cost[Cost.UNCACHED_ACCESS]
    assert do_access_cost_ps(state, kind, 0) == (cached if reads else uncached)
    # A write to write-combining memory ends in a buffer.
    assert do_access_cost_ps(state, kind, 1) == (cached if writes or kind == MemoryType.WC else uncached)


def test_the_type_of_a_page_adds_what_memory_takes_longer(state: State) -> None:
    state.cpu[0].pat = LINUX_PAT
    longer = state.cost[Cost.UNCACHED_ACCESS] - state.cost[Cost.MEMORY_ACCESS]
    extra = {
        kind: [do_type_extra_ps(state, index, kind) for index in range(8)]
        for kind in (AccessKind.READ, AccessKind.WRITE, AccessKind.EXECUTE)
    }
    #                          WB  WC  UC-  UC  WB  WP  UC-  WT
    assert extra[AccessKind.READ] == [longer * slow for slow in (0, 1, 1, 1, 0, 0, 1, 0)]
    assert extra[AccessKind.WRITE] == [longer * slow for slow in (0, 0, 1, 1, 0, 1, 1, 1)]
    assert extra[AccessKind.EXECUTE] == extra[AccessKind.READ]


def test_a_type_takes_no_time_back(state: State) -> None:
    state.cpu[0].pat = LINUX_PAT
    np.asarray(state.cost)[:] = cost_table_ps(Fraction(1), {"uncached_access": 1})
    assert do_type_extra_ps(state, 3, AccessKind.READ) == 0
