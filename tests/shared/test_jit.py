"""Kernels, entries and declarations: who may call what, and how a broken invariant ends a run."""

from pathlib import Path

import pytest

from tests.shared.units_for_tests import Tree

UNCOMPILED = {"NUMBA_DISABLE_JIT": "1"}
CHECKED = {"PAGEFLEET_CHECKED": "1"}
THREE_WAYS = pytest.mark.parametrize(
    "build", [{}, CHECKED, UNCOMPILED], ids=["compiled", "checked", "uncompiled"]
)
INDEX_CHECKED = pytest.mark.parametrize("build", [CHECKED, UNCOMPILED], ids=["checked", "uncompiled"])
CATCH = """
from node.unit import *
from shared.panic import KernelPanic
try:
    {call}
except KernelPanic as panic:
    print("panic", panic.code, list(map(int, state.panic[:3])), int(state.cell[0]))
else:
    print("no panic")
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return Tree(tmp_path_factory.mktemp("units"))


def test_a_compiled_kernel_is_not_called_from_python(tree: Tree) -> None:
    program = (
        "from node.unit import put\ntry:\n    put(state, 0, 1)\nexcept TypeError as error:\n    print(error)"
    )
    assert tree.run(program).startswith("put: a compiled kernel is called by kernels and entries")
    assert tree.run(program, **UNCOMPILED) == ""


def test_tests_may_call_every_kernel(tree: Tree) -> None:
    program = "from node.unit import put\nput(state, 1, 8)\nprint(state.cell[1])"
    assert tree.run(program, PAGEFLEET_WRAPPERS="1") == "8"


@THREE_WAYS
def test_an_entry_returns_what_its_kernels_computed(tree: Tree, build: dict[str, str]) -> None:
    assert (
        tree.run("from node.unit import fill\nprint(fill(state, 2), state.cell.tolist())", **build)
        == "3 [3, 1, 5, 0]"
    )


@THREE_WAYS
def test_units_call_one_another_in_a_circle(tree: Tree, build: dict[str, str]) -> None:
    # down -> twice -> down -> ... : 4 levels, and both units are compiled at their first call.
    program = "from node.unit import down\nstate.cell[3] = 1\nprint(down(state, 4))"
    assert tree.run(program, **build) == "4"


def test_a_kernel_has_one_copy_for_members_and_integers(tree: Tree) -> None:
    program = "import node.unit\nnode.unit.fill(state, 2)\nprint(len(node.unit.put.signatures))"
    tree.edit("callee", "STEP: Final = 1", "STEP: Final = 2")  # so that it is compiled here, not loaded
    try:
        assert tree.run(program) == "1"
    finally:
        tree.edit("callee", "STEP: Final = 2", "STEP: Final = 1")


@THREE_WAYS
def test_a_broken_invariant_ends_the_run_with_its_cause(tree: Tree, build: dict[str, str]) -> None:
    assert tree.run(CATCH.format(call="complain(state, 3)"), **build) == "panic 9 [9, -1, 3] 0"
    assert tree.run(CATCH.format(call="complain(state, 4)"), **build) == "no panic"


@INDEX_CHECKED
@pytest.mark.parametrize("call", ["break_index(state, 4)", "break_index(state, -1)"])
def test_an_index_outside_a_table_ends_the_run(tree: Tree, build: dict[str, str], call: str) -> None:
    found = tree.run(CATCH.format(call=call), **build)
    assert found.startswith("panic 1 ")
    assert found.endswith("] 0")  # what stands behind it did not run


@INDEX_CHECKED
def test_an_index_outside_a_table_in_another_unit_ends_the_run(tree: Tree, build: dict[str, str]) -> None:
    found = tree.run(CATCH.format(call="break_index_elsewhere(state, 4)"), **build)
    assert found.startswith("panic ")
    assert found.endswith("] 0")


def test_a_unit_that_cannot_be_compiled_ends_the_run_of_its_caller(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.edit("other", "return 2 * value", "return 2 * unknown")
    found = tree.run(CATCH.format(call="call_other(state, 4)"))
    assert found.startswith("panic -1 ")


@pytest.mark.parametrize("allocation", ["np.zeros(value)", "[value]", "{value: 1}", "str(value)"])
def test_a_kernel_that_allocates_does_not_compile(tmp_path: Path, allocation: str) -> None:
    tree = Tree(tmp_path)
    tree.edit("callee", "return value + STEP", f"return len({allocation})")
    tree.edit("callee", "from typing", "import numpy as np\nfrom typing")
    program = "from node.unit import fill\ntry:\n    fill(state, 2)"
    program += "\nexcept Exception as error:\n    print(type(error).__name__)"
    assert tree.run(program) in {"TypingError", "LoweringError", "NumbaRuntimeError", "NumbaTypeError"}
