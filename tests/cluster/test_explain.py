"""``pagefleet explain translate`` as a user meets it: what it prints, its JSON, and one line for each mistake."""

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cluster.cli import build_parser
from cluster.errors import InputError
from cluster.explain import ExplainRequest, explain_translate
from cluster.explain_text import lines_of
from tests.cluster import programs

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "explain.md").read_text()
EXAMPLES = re.findall(r"```console\n\$ pagefleet (.*?)\n(.*?)```", DOCUMENT, re.DOTALL)
WIDEST = 110

SCENARIO = """
name: lab
duration: 1s
machines:
  - name: box
    memory: 96MiB
    processes:
      - {workload: sequential, memory: 64KiB, operations: 0, write_percent: 100, think_ns: 10000}
      - {workload: sequential, memory: 64KiB, operations: 0, write_percent: 100, think_ns: 10000}
hosts:
  - name: h
    memory: 128MiB
    guests:
      - machine: {memory: 96MiB, processes: [{workload: uniform, memory: 64KiB, operations: 10}]}
      - {image: idle-a}
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "lab.yaml"
    path.write_text(SCENARIO)
    return path


def said_of(machine: object, address: str, **changes: Any) -> dict[str, Any]:
    return explain_translate(ExplainRequest(machine=str(machine), address=address, **changes))


def text_of(said: dict[str, Any]) -> str:
    return "\n".join(text.rstrip() for text, _ in lines_of(said)) + "\n"


def printed(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Carry out a command in this process; return its stdout."""
    options = build_parser().parse_args(shlex.split(command))
    assert options.verb(options) == 0
    captured = capsys.readouterr()
    assert captured.err == "" or captured.err.startswith("pagefleet: compiling")
    return captured.out


# --- what is printed ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("command", "output"), EXAMPLES, ids=[command for command, _ in EXAMPLES])
def test_the_manuals_examples_are_what_is_printed(
    command: str, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert printed(command, capsys) == output


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 3
    assert max(len(line) for _, output in EXAMPLES for line in output.splitlines()) <= WIDEST


@pytest.mark.parametrize(
    "command",
    [
        command
        for command in re.findall(r"^\| `--machine (.*?)`", DOCUMENT, re.MULTILINE)
        if ".yaml" not in command
    ],
)
def test_what_the_manual_suggests_works(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "\nresult\n" in printed(f"explain translate --machine {command}", capsys)


def test_every_line_fits_a_wide_terminal_and_is_plain(
    scenario: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for request in (
        f"{scenario}:box first --at 8ms --process 1",
        f"{scenario}:h.guest first --at 1ms",
        f"{scenario}:h first --access write --repeat 2",
        "hw.paging=5level,hw.pti=on,processes.0.mergeable=true first --at 1ms --mode kernel --ac",
    ):
        out = printed(f"explain translate --machine {request}", capsys)
        assert max(len(line) for line in out.splitlines()) <= WIDEST
        assert out.isascii()
        assert "\x1b" not in out


def test_a_guests_walk_is_nested(scenario: Path) -> None:
    said = said_of(f"{scenario}:h.guest", "first", repeat=1)
    assert said["machine"]["guest"]
    assert re.search(
        r"walk \(nested: \d+ entries read, \d of the guest's and \d+ of the host's\)", text_of(said)
    )


# --- JSON -----------------------------------------------------------------------------------------------


def keys_in_manual(heading: str) -> set[str]:
    """Return what the tables of docs/explain.md's JSON part name in their first column."""
    _, _, part = DOCUMENT.partition("## JSON")
    before, _, behind = part.partition("Of each access:")
    rows = before if heading == "all" else behind
    return set(re.findall(r"^\| `([a-z_]+)` \|", rows, re.MULTILINE))


def words(said: object) -> set[str]:
    """Return every key in an explanation but names of bits and counters."""
    if isinstance(said, list):
        return set().union(*map(words, said))
    if not isinstance(said, Mapping):
        return set()
    inner = [words(value) for key, value in said.items() if key not in ("bits", "counters")]
    return set(said).union(*inner)


def test_json_is_one_object_with_the_manuals_keys(capsys: pytest.CaptureFixture[str]) -> None:
    command = "explain translate --machine icelake first --at 1ms --repeat 1 --json"
    said = json.loads(printed(command, capsys))
    assert set(said) == keys_in_manual("all")
    assert [set(access) for access in said["accesses"]] == [keys_in_manual("each")] * 2
    assert said["accesses"][1]["outcome"]["served_by"] == "first-level TLB"


def test_every_key_is_in_the_manual(scenario: Path) -> None:
    documented = set(re.findall(r"`([a-z_0-9]+)`", DOCUMENT)) | {"write", "user", "execute"}
    for said in (
        said_of(f"{scenario}:box", "first", at="8ms", process="1", repeat=1),
        said_of("icelake", "direct-map", mode="user", repeat=1),
        said_of("skylake", "first", repeat=1, access="write"),
        said_of("hw.paging=none", "0x7fffffff"),
        said_of("skylake", "0x800000000000"),
    ):
        assert words(said) <= documented


def test_integers_that_are_addresses_are_hexadecimal_text() -> None:
    said = said_of("skylake", "4096")
    assert said["address"]["linear"] == f"{4096:#018x}"
    for text in (said["registers"]["cr3"], said["region"]["last"], said["accesses"][0]["outcome"]["cr2"]):
        assert int(text, 16) >= 0


# --- SPEC and ADDRESS -----------------------------------------------------------------------------------


def test_a_machine_is_written_out_in_keys() -> None:
    said = said_of(
        "zen4,memory=128MiB,cpus=2,hw.paging=5level,hw.pcid=off,hw.tlb={data: {4K: {entries: 8, ways: 2}}}",
        "first",
        settings=("hw.pti=on",),
    )
    machine = said["machine"]
    assert (machine["processor"], machine["paging"], machine["cpus"]) == ("zen4", "5level", 2)
    assert (machine["memory_bytes"], machine["pcid"], machine["pti"]) == (128 << 20, False, True)
    assert (said["accesses"][0]["tlbs"][0]["entries"], said["accesses"][0]["tlbs"][0]["ways"]) == (8, 2)


def test_a_scenario_is_named_with_its_settings(tmp_path: Path, scenario: Path) -> None:
    said = said_of(f"{scenario}:box", "first", settings=("machines.0.hw.processor=zen2",), seed=7)
    assert (said["machine"]["name"], said["machine"]["processor"]) == ("box", "zen2")
    alone = tmp_path / "alone.yaml"
    alone.write_text("name: one\nduration: 1s\nmachines: [{name: only, memory: 96MiB}]\n")
    assert said_of(alone, "direct-map")["machine"]["name"] == "only"


@pytest.mark.parametrize("text", ["0xffff888002100005", "0xFFFF_8880_0210_0005", "direct-map+0x2100005"])
def test_an_address_has_many_forms(text: str) -> None:
    assert said_of("skylake", text)["address"]["linear"] == "0xffff888002100005"


def test_time_passes_before_the_access() -> None:
    said = said_of("skylake", "first", at="2ms")
    assert said["question"]["time_ns"] >= 2_000_000
    assert said["accesses"][0]["outcome"]["result"] == "page"


@pytest.mark.parametrize(
    ("machine", "address", "changes", "expected"),
    [
        ("nix.yaml", "first", {}, "nix.yaml: No such file or directory"),
        ("pentium", "first", {}, '--machine pentium: hw.processor: "pentium" is not one of'),
        ("memory=512", "first", {}, "--machine memory=512: memory: 512 has no unit: write it as 512MiB"),
        (
            "hw.pagin=none",
            "first",
            {},
            "--machine hw.pagin=none: hw.pagin: unknown key (did you mean paging?)",
        ),
        ("memory..=1", "first", {}, "--machine memory..=1: write it as dotted.key=value"),
        ("hw.pcid=on,hw.paging=32bit", "first", {}, "--machine: hw.pcid: on needs 4level or 5level paging"),
        ("memory=8MiB", "first", {}, "memory: 8MiB"),
        ("skylake", "first", {"settings": ("cpus=0",)}, "--set cpus=0: cpus: 0 is below the minimum of 1"),
        ("skylake", "ffff888000000000", {}, "ADDRESS 'ffff888000000000': not a number; write it as 0xffff"),
        (
            "skylake",
            "88ff",
            {},
            "ADDRESS '88ff': not a hexadecimal (0x...) or decimal number, or a place; wr",
        ),
        ("skylake", "0xzz", {}, "ADDRESS '0xzz': not a hexadecimal"),
        ("skylake", "-5", {}, "ADDRESS '-5': not a hexadecimal"),
        ("skylake", "1__2", {}, "ADDRESS 1__2: not a number"),
        ("skylake", "first+", {}, "ADDRESS 'first+': not a hexadecimal"),
        ("skylake", "0x10000000000000000", {}, "ADDRESS 0x10000000000000000: more than 64 bits"),
        ("skylake", "nowhere", {}, "address: 'nowhere' is not a number, nor one of first, user-space,"),
        ("hw.paging=32bit", "0x100000000", {}, "address: 0x100000000 is outside the 32 bits of 32bit paging"),
        ("skylake", "first", {"process": "1"}, "process: 1 is not one of this machine's (0 to 0)"),
        ("skylake", "first", {"process": "init"}, "--process 'init': neither a number"),
        ("skylake", "first", {"cpu": 1}, "cpu: 1 is not one of this machine's (0 to 0)"),
        ("skylake", "first", {"at": "5"}, "--at: '5' is not a time such as 20ms"),
        ("skylake", "first", {"at": "2h"}, "--at 2h: more than an hour"),
    ],
)
def test_bad_input_is_one_line(machine: str, address: str, changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError) as caught:
        said_of(machine, address, **changes)
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


def test_members_that_cannot_be_asked_are_named(scenario: Path) -> None:
    for name, expected in (
        ("", "say which of its 3 machines as "),
        (":nobody", "no machine 'nobody' there; there are h, h.guest, box"),
        (":h.idle-a", "h.idle-a: an image guest replays memory, it has no page tables"),
    ):
        with pytest.raises(InputError, match=re.escape(expected)):
            said_of(f"{scenario}{name}", "first")
    with pytest.raises(InputError, match="a host runs only with its guests"):
        said_of(f"{scenario}:h", "first", at="1ms")


def test_exit_statuses(tmp_path: Path) -> None:
    def run(*arguments: str) -> tuple[int, str, str]:
        done = programs.run("explain", *arguments, cwd=tmp_path, program=programs.REAL)
        return done.returncode, done.stdout, done.stderr

    status, out, _ = run("translate", "--machine", "skylake", "first", "--json")
    assert status == 0
    assert json.loads(out)["accesses"][0]["outcome"]["result"] == "fault"
    for arguments in (
        ("translate", "--machine", "skylake", "0xzz"),
        ("translate", "--machine", "skylake", "first", "--cpu", "64"),
        ("translate", "--machine", "skylake", "first", "--repeat", "-1"),
        ("translate", "--machine", "skylake", "first", "--access", "jump"),
        ("translate", "first"),
        (),
    ):
        status, out, errors = run(*arguments)
        assert (status, out, errors.count("\n")) == (2, "", 1)
        assert errors.startswith("pagefleet: ")
