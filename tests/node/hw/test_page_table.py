"""Where entries stand: page tables read by position, in every mode."""

import pytest

from node.hw.page_table import entry_position, is_large_leaf, leaf_position, pte_position
from node.hw.paging import PageSize
from node.hw.pte import Pte
from shared.constants import NIL
from tests.node.hw.small_machine import USER_RW, SmallMachine

pytestmark = pytest.mark.three_ways

MODES = ("32bit", "4level", "5level")
ADDRESSES = {
    "32bit": (0, 0x1000, 0x1234_5000, 0xFFFF_F000),
    "4level": (0, 0x1000, 0x7FFF_FFFF_F000, -(1 << 47), -0x1000, 0x1234_5678_9000),
    "5level": (0, 0x1000, 0xFF_FFFF_FFFF_F000, -(1 << 56), -0x1000, 0x12_3456_789A_B000),
}
CASES = [(mode, vaddr) for mode in MODES for vaddr in ADDRESSES[mode]]


@pytest.mark.parametrize(("paging", "vaddr"), CASES)
def test_each_level_takes_its_own_bits_of_an_address(paging: str, vaddr: int) -> None:
    machine = SmallMachine(hw={"paging": paging})
    entries = 1 << machine.mode.table_shift
    # From the page upwards, an address is a number whose digits are the indexes.
    digits = vaddr >> 12
    for level in reversed(range(len(machine.mode.levels))):
        digits, index = divmod(digits, entries)
        assert entry_position(machine.state, 3, vaddr, level) == 3 * entries + index


@pytest.mark.parametrize(("paging", "vaddr"), CASES)
def test_the_last_levels_entry_is_found_through_all_others(paging: str, vaddr: int) -> None:
    machine = SmallMachine(hw={"paging": paging})
    pgd = machine.state.mm[1].pgd_pfn
    assert pte_position(machine.state, pgd, vaddr) == NIL
    machine.map(1, vaddr, 7)
    assert pte_position(machine.state, pgd, vaddr) == machine.position(1, vaddr)
    assert leaf_position(machine.state, pgd, vaddr, 0) == entry_position(machine.state, pgd, vaddr, 0)


@pytest.mark.parametrize("paging", MODES)
def test_a_table_that_is_missing_ends_the_search_at_any_level(paging: str) -> None:
    machine = SmallMachine(hw={"paging": paging})
    vaddr = 0x1234_5000
    machine.map(1, vaddr, 7)
    pgd = machine.state.mm[1].pgd_pfn
    for level in reversed(range(len(machine.mode.levels) - 1)):
        position = leaf_position(machine.state, pgd, vaddr, level)
        machine.state.pt_word[position] &= ~Pte.PRESENT
        assert pte_position(machine.state, pgd, vaddr) == NIL
        assert leaf_position(machine.state, pgd, vaddr, level) == position


@pytest.mark.parametrize(
    ("paging", "size"),
    [("32bit", PageSize.LARGE), *((mode, size) for mode in MODES[1:] for size in (1, 2))],
)
def test_a_larger_page_has_no_last_level_but_an_entry_of_its_own(paging: str, size: int) -> None:
    machine = SmallMachine(hw={"paging": paging})
    vaddr = 3 << 30
    machine.map(1, vaddr, 0, USER_RW, size)
    pgd = machine.state.mm[1].pgd_pfn
    nr_levels = len(machine.mode.levels)
    assert pte_position(machine.state, pgd, vaddr) == NIL
    position = leaf_position(machine.state, pgd, vaddr, nr_levels - 1 - size)
    assert position == machine.position(1, vaddr, size=size)
    assert is_large_leaf(machine.state, nr_levels - 1 - size, machine.state.pt_word[position]) == 1


@pytest.mark.parametrize(
    ("hw", "leaves"),
    [
        ({"paging": "32bit"}, [1]),
        ({"paging": "4level"}, [0, 1, 1]),
        ({"paging": "5level"}, [0, 0, 1, 1]),
        # The R3000 has 4 KiB pages only; its 64-bit mode is a thought experiment, and lacks 1 GiB pages.
        ({"paging": "4level", "processor": "r3000", "tlb": {}}, [0, 0, 1]),
    ],
)
def test_which_levels_map_pages_follows_mode_and_processor(hw: dict[str, object], leaves: list[int]) -> None:
    machine = SmallMachine(hw=hw)
    word = USER_RW | Pte.HUGE
    assert [is_large_leaf(machine.state, level, word) for level in range(len(leaves))] == leaves
    assert [is_large_leaf(machine.state, level, USER_RW) for level in range(len(leaves))] == [0] * len(leaves)
