"""The check of reserved frames finds each thing that must not happen to one."""

import pytest

from node.phys.page import PageFlag
from node.phys.reserved_check import check_reserved
from node.state import State
from tests.node.vm_machine import VmMachine


@pytest.fixture
def state() -> State:
    return VmMachine().state


def test_a_machine_after_boot_is_in_order(state: State) -> None:
    assert check_reserved(state) == []


@pytest.mark.parametrize(
    ("flag", "what"),
    [
        (PageFlag.BUDDY, "in a free block"),
        (PageFlag.PCP, "in a free block"),
        (PageFlag.LRU, "on an LRU list"),
        (PageFlag.SWAPCACHE, "on its way to swap"),
        (PageFlag.WRITEBACK, "on its way to swap"),
    ],
)
def test_a_reserved_frame_in_use_is_found(state: State, flag: PageFlag, what: str) -> None:
    state.page[0].page_flags |= flag
    assert check_reserved(state) == [f"frame 0: is reserved, yet {what}"]
