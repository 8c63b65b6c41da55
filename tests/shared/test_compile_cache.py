"""The cache of compiled units: an edit that matters is noticed, one that does not costs nothing."""

import ast
from pathlib import Path

import numba
import pytest

from shared.compile_cache import compiler_switches
from shared.unit_digest import ROOT, unit_digest, unit_files
from tests.shared.units_for_tests import Tree

FILL = "from node.unit import fill\nprint(fill(state, 1))"
CALL = "from node.unit import call_other\nprint(call_other(state, 4))"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_an_edit_in_a_callees_file_is_noticed(tree: Tree) -> None:
    assert tree.run(FILL) == "2"
    before = tree.folders()
    tree.edit("callee", "STEP: Final = 1", "STEP: Final = 41")
    assert tree.run(FILL) == "42"
    assert len(tree.folders()) == len(before) + 1


def test_comments_and_docstrings_compile_nothing_anew(tree: Tree) -> None:
    assert tree.run(FILL) == "2"
    before = tree.machine_code()
    tree.edit("callee", '"""Return the next value."""', '"""Return what comes next."""\n    # A comment.')
    tree.edit("unit", '"""A unit."""', '"""A unit.\n\nSeveral lines longer.\n"""')
    assert tree.run(FILL) == "2"
    assert tree.machine_code() == before


def test_an_edit_behind_a_declaration_compiles_its_own_unit_only(tree: Tree) -> None:
    assert tree.run(CALL) == "9"
    before = tree.machine_code()
    tree.edit("other", "return 2 * value", "return 3 * value")
    assert tree.run(CALL) == "13"
    after = tree.machine_code()
    new = {name for name in after if after[name] != before.get(name)}
    assert new
    assert all("twice" in name for name in new)


def test_a_changed_declaration_is_noticed_by_its_callers(tree: Tree) -> None:
    before = tree.run("from shared.unit_digest import *\nprint(unit_digest(ROOT / 'node/unit.py', ''))")
    tree.edit(
        "unit",
        "from node.joints import store_at, twice",
        "from node.joints import down as _, store_at, twice",
    )
    assert (
        tree.run("from shared.unit_digest import *\nprint(unit_digest(ROOT / 'node/unit.py', ''))") != before
    )


def test_a_changed_layout_of_the_state_is_noticed(tree: Tree) -> None:
    assert tree.run(FILL) == "2"
    tree.edit("state", "    cell: Counters", "    other: Counters = table(np.int32)\n    cell: Counters")
    before = tree.machine_code()
    assert tree.run(FILL) == "2"
    assert tree.machine_code().keys() > before.keys()


def test_compiler_switches_have_machine_code_of_their_own(tree: Tree) -> None:
    tree.run(FILL)
    tree.run(FILL, PAGEFLEET_CHECKED="1")
    assert len(tree.folders()) == 2
    tree.run(FILL, NUMBA_OPT="1")
    assert len(tree.folders()) == 3


def test_uncompiled_nothing_is_kept(tree: Tree) -> None:
    assert tree.run(FILL, NUMBA_DISABLE_JIT="1") == "2"
    assert tree.folders() == []


def test_a_digest_names_version_and_switches() -> None:
    path = ROOT / "node" / "touch.py"
    assert numba.__version__ in compiler_switches()
    assert unit_digest(path, compiler_switches()) != unit_digest(path, compiler_switches() + "x")


def test_no_unit_of_node_contains_another_room_by_accident() -> None:
    # What allocation, reclaim, faults and KSM need of one another goes through declarations.
    files, declared = unit_files(ROOT / "node" / "fault" / "fault.py")
    rooms = {path.relative_to(ROOT).parts[1] for path in files if path.is_relative_to(ROOT / "node")}
    assert "swap" not in rooms
    assert "node.joints.swap_in" in declared
    assert not any(path.name == "joints.py" for path in files)


def test_numba_still_has_the_option_that_kernels_lean_on() -> None:
    # `_nrt` is private to numba: without it a kernel that allocates would compile.
    source = ast.parse((ROOT / "shared" / "jit.py").read_text())
    assert any(isinstance(node, ast.Constant) and node.value == "_nrt" for node in ast.walk(source))
    assert "_nrt" in numba.core.options.DefaultOptions.__dict__ or hasattr(
        numba.core.options.DefaultOptions, "_nrt"
    )
