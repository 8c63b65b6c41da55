"""The driver's source beside what the recorder sends it."""

import re
import shutil
from pathlib import Path

import pytest

from tests.kernel.driver_program import SOURCE, compile_driver
from tests.kernel.script import CONTROLLER, PROCESS

HEADERS = SOURCE.parent / "driver"
# What prepares the machine is no part of the language.
PREPARATION = {"load", "mount", "swapon", "cpus", "begin"}


def verbs_of(header: str, table: str) -> set[str]:
    """Return the verbs of a C table: its rows begin with a string."""
    text = (HEADERS / header).read_text().split(f"}} {table}[] = {{", 1)[1].split("};", 1)[0]
    return set(re.findall(r'\{ "(\w+)"', text))


def test_the_driver_has_every_command_of_a_process_and_no_other() -> None:
    assert verbs_of("process.h", "PROCESS_COMMANDS") == set(PROCESS)


def test_the_driver_has_every_command_of_the_controller_and_no_other() -> None:
    assert verbs_of("controller.h", "NEEDS") - PREPARATION == set(CONTROLLER)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_the_driver_compiles_to_a_static_program(tmp_path: Path) -> None:
    program = compile_driver(tmp_path)
    assert program.startswith(b"\x7fELF")
    assert b"/lib64/ld-linux" not in program
