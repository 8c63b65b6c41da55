"""What must hold of the program as a whole: whose modules run, and what an import costs."""

import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("cluster", "node", "scenarios", "shared")


def module_names(folder: str) -> list[str]:
    """Return the modules found under a folder; a package goes by its own name."""
    names = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def packages_loaded_by(*arguments: str) -> set[str]:
    """Run Python on ``arguments`` and return the top-level packages that it imported."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Each line of -X importtime: "import time: microseconds | microseconds | name".
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_packages_are_this_checkouts(folder: str) -> None:
    # The names exist on PyPI too.
    file = importlib.import_module(folder).__file__
    assert file is not None
    assert Path(file).resolve() == ROOT / folder / "__init__.py"


def test_every_package_folder_has_a_docstring_and_nothing_else() -> None:
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("__init__.py"):
            text = path.read_text().strip()
            assert text.startswith('"""'), path
            assert text.endswith('"""'), path
            assert text.count('"""') == 2, path


def test_no_module_of_cluster_imports_numba() -> None:
    names = [name for name in module_names("cluster") if name != "cluster.__main__"]
    loaded = packages_loaded_by("-c", f"import {', '.join(names)}")
    assert "cluster" in loaded
    assert not loaded & {"numba", "llvmlite"}


def test_help_loads_no_heavy_package() -> None:
    loaded = packages_loaded_by("-m", "cluster", "--help")
    assert "cluster" in loaded
    assert not loaded & {"numba", "llvmlite", "ray", "plotly", "pyarrow", "numpy"}


def test_messages_and_streams_need_no_numba() -> None:
    loaded = packages_loaded_by("-c", "import shared.member, shared.messages, shared.streams, shared.units")
    assert "shared" in loaded
    assert not loaded & {"numba", "llvmlite"}


def test_every_dependency_is_pinned_within_its_range() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    pinned = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}
    for text in project["dependencies"] + project["optional-dependencies"]["dev"]:
        wanted = Requirement(text)
        assert wanted.specifier.contains(pinned[canonicalize_name(wanted.name)]), text


def test_the_project_cannot_be_uploaded() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "Private :: Do Not Upload" in project["classifiers"]


def test_a_missing_debian_package_is_named_in_one_line(tmp_path: Path) -> None:
    fake = tmp_path / "dpkg-query"
    fake.write_text('#!/bin/sh\ncase "$*" in *gcc*) exit 1 ;; *) echo "install ok installed" ;; esac\n')
    fake.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    need = ROOT / ".ci" / "need-packages"
    done = subprocess.run([need, "bench"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "make bench: missing Debian packages, to be installed with: apt-get install gcc\n"
    assert subprocess.run([need, "install"], env=environment, check=False).returncode == 0
