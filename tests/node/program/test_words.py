"""Programs that are wrong: what is said, before anything runs."""

import pytest

from node.machine import Machine, MachineSpec
from node.program.controller import CONTROLLER
from node.program.names import check_text
from node.program.program import PROCESS, Program
from node.program.run import NotModelled
from node.program.text import ProgramError, commands, parse_number, read_text
from node.program.words import CONTROLLER_SHAPES, LATER, PROCESS_SHAPES, unmodelled, without
from shared.constants import MIB

START = "spawn A\nA: mmap h 4M\n"


def error_of(text: str) -> str:
    with pytest.raises(ProgramError) as caught:
        check_text(text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_command_that_is_modelled_is_in_the_language() -> None:
    assert CONTROLLER.keys() <= CONTROLLER_SHAPES.keys()
    assert PROCESS.keys() <= PROCESS_SHAPES.keys()


def test_every_word_that_comes_later_is_of_a_command_that_is_modelled() -> None:
    verbs = {name.split()[0] for name in LATER} - {"&"}
    assert verbs <= CONTROLLER.keys() | PROCESS.keys()


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("A: frob h", "'frob' is no command of a process: expected one of mmap munmap "),
        ("frob", "'frob' is no command of the controller: expected one of spawn cgroup "),
        ("mmap g 4M", "'mmap' is no command of the controller: expected A: mmap NEW SIZE "),
        ("A: compact", "'compact' is no command of a process: expected compact"),
        ("A:", "A: does nothing, expected a command"),
        ("A: mmap", "mmap needs a name: expected mmap NEW SIZE [shared]"),
        ("A: mmap g", "mmap needs a size: expected mmap NEW SIZE [shared]"),
        ("A: mmap g 8Q", "'8Q' is not a number such as 512P or 8M+1P*3"),
        ("A: mmap g 8M+", "'8M+' is not a number such as 512P or 8M+1P*3"),
        ("A: mmap g $i", "'$i' is not a number such as 512P or 8M+1P*3"),
        ("A: mmap g 0", "'0' is 0: expected a size of 1 or more"),
        ("A: mmap g 0P*7", "'0P*7' is 0: expected a size of 1 or more"),
        ("A: mmap g 8388608P*1G", "'8388608P*1G' is too large: a number here is at most 9223372036854771712"),
        (
            "A: mmap g 9223372036854775807",
            "'9223372036854775807' is too large: a number here is at most 922337203685477",
        ),
        (
            "A: mmap g 0x8000000000000000",
            "'0x8000000000000000' is too large: a number here is at most 9223372036854771712",
        ),
        ("A: mmap g 4M populated", "'populated' is not understood: expected mmap NEW SIZE "),
        ("A: mmap g 4M ro none", "'none' is not understood: expected mmap NEW SIZE "),
        ("A: mmap g 4M fd=3", "'fd=3' is not understood: expected mmap NEW SIZE "),
        ("A: mmap g 4M at=4K at=8K", "'at=8K': at= is there twice"),
        ("A: munmap h off=1", "'off=1' is not a multiple of 4096"),
        ("A: munmap h len=0", "'len=0' is 0: expected a length of 1 or more"),
        ("A: munmap h stride=2P", "'stride=2P' is not understood: expected munmap MAPPING "),
        ("A: mprotect h rx", "'rx': expected one of rw ro none"),
        ("A: madvise h soon", "'soon': expected one of normal random "),
        ("A: read h stride=0", "'stride=0' is 0: expected a length of 1 or more"),
        ("A: read h loops=0", "'loops=0' is 0: expected a number of 1 or more"),
        ("A: read h rand count=5", "read needs seed=: expected read MAPPING "),
        ("A: read h backwards", "'backwards' is not understood: expected read MAPPING "),
        ("A: fill h uniq", "'uniq': expected a pattern: zero const:B uniq:S "),
        ("A: fill h uniq:x", "'x' is not a number"),
        (
            "A: fill h uniq:18446744073709551616",
            "'18446744073709551616' is too large: a number here is below 2**64",
        ),
        ("A: fill h zero twice", "'twice' is not understood: expected fill MAPPING PATTERN "),
        ("A: exit now", "'now' is not understood: expected exit"),
        ("A: fork C D", "'D' is not understood: expected fork PROCESS"),
        ("A: fork a-b", "'a-b': expected a process"),
        ("snapshot", "snapshot needs a name: expected snapshot NAME"),
        ("snapshot a b", "'b' is not understood: expected snapshot NAME"),
        ("ksm run", "ksm needs a value: expected ksm FILE VALUE ..."),
        ("ksm_step 3", "ksm_step needs a number of pages: expected ksm_step COUNT PAGES"),
        ("ksm_scan 0", "'0' is 0: expected a number of 1 or more"),
        ("drop_caches 4", "'4': expected one of 1 2 3"),
        ("spawn B oom=1001", "'oom=1001': expected a number from -1000 to 1000"),
        ("spawn B nice=3", "'nice=3' is not understood: expected spawn PROCESS "),
        ("spawn B cg=g", "there is no cgroup g"),
        ("spawn A", "there is a process A already"),
        ("A: fork A", "there is a process A already"),
        ("B: exit", "there is no process B"),
        ("wait B", "there is no process B"),
        ("A: read g", "A has no mapping g"),
        ("A: fread f 0 1P", "A has no open file f"),
        ("repeat 0\nsync\nend", "repeat: '0' is 0, expected 1 or more"),
        ("repeat x\nsync\nend", "repeat: 'x' is not a number such as 512P or 8M+1P*3"),
        ("repeat\nsync\nend", "'repeat': expected repeat and one number"),
        ("repeat 2 3\nsync\nend", "'repeat 2 3': expected repeat and one number"),
        ("repeat 9\nend", "repeat of nothing: expected a command before end"),
        ("repeat 9\nsync", "repeat without end"),
        ("end", "end without repeat"),
        ("end 3", "end without repeat"),
        ("#! nothing", "a header line is '#! key: value'"),
    ],
)
def test_a_line_that_is_wrong_is_told_with_its_number_its_word_and_what_was_expected(
    line: str, complaint: str
) -> None:
    assert error_of(START + line).startswith(f"line 3: {complaint}")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("A: munmap h\nA: read h", "line 4: A has no mapping h"),
        ("A: exit\nA: read h", "line 4: there is no process A"),
        ("A: fork C\nC: mmap g 1P\nA: read g", "line 5: A has no mapping g"),
        ("repeat 2\nA: munmap h\nend", "line 4: A has no mapping h"),
        (
            "repeat 1000000\nrepeat 1000000\nsync\nend\nend",
            "line 5: the program runs more than 1000000 lines",
        ),
        ("repeat 2\nsync\nend 2", "line 5: 'end 2': expected end alone"),
        ("repeat 1\n" * 18 + "sync\n" + "end\n" * 18, "line 20: repeat within more than 16 others"),
    ],
)
def test_names_and_loops_are_followed_through_the_program(text: str, complaint: str) -> None:
    assert error_of(START + text) == complaint


@pytest.mark.parametrize(
    "text",
    [
        "A: munmap h off=4K len=4K\nA: read h",  # the rest has the name
        "A: fork C\nC: read h\nC: exit\nspawn C\nC: mmap h 1P",
        "A: mmap h 1P\nA: read h",  # the newer mapping
        "A: fopen f /mnt/f4\nA: fork C\nC: fadvise f 0 0 random",
        "cgroup g memory.max=48M memory.high=1M\nspawn B cg=g oom=-1000",
        "watchfile /mnt/a /mnt/b\nksm run 1 pages_to_scan 7",
        "A: fill h uniq:0xffffffffffffffff # a comment\n  # another\nA: read h back",
        "A: write h rand count=1 seed=0xffffffffffffffff",
        "repeat 2\n  repeat 3\n    A: mmap m$i_$j 1P+1P*$i*$j\n  end\nend",
    ],
)
def test_what_is_right_is_taken(text: str) -> None:
    check_text(START + text)


def test_numbers_are_sums_of_products() -> None:
    assert parse_number("8M+1P*3") == 8 * MIB + 3 * 4096
    assert parse_number("010") == 10
    assert parse_number("0x10K") == 16 * 1024
    assert parse_number("9223372036854775807") == (1 << 63) - 1
    for text in ("", "-1", "1_000", "٣", "1e3", "9" * 5000, "2*" * 5000 + "2"):
        with pytest.raises(ValueError, match=r"^.{0,60}(is not a number|is too large)"):
            parse_number(text)


def test_all_that_is_not_modelled_is_named_once_and_with_the_first_line() -> None:
    text = START + "sync\nA: madvise h pageout\nA: madvise h pageout\nA&: read h\nset /proc/x 1\nsync"
    with pytest.raises(NotModelled) as caught:
        Program(text)
    assert caught.value.names == ("sync", "madvise pageout", "set /proc/x")
    assert str(caught.value) == "line 3: not modelled yet: sync, madvise pageout, set /proc/x"


def test_what_is_passed_over_is_left_out_of_the_program() -> None:
    text = (
        START
        + "cgroup g memory.max=1M\nspawn B cg=g\nA&: madvise h pageout\nA&: read h\nsnapshot s\nwatchfile x"
    )
    names = ("cgroup", "spawn cg=", "madvise p*")
    program = Program(text, pass_over=names, up_to="s")
    assert program.skipped == ("cgroup", "spawn cg=", "madvise pageout")
    assert [(one.verb, one.options, one.background) for one in program.commands()][2:] == [
        ("spawn", {}, False),
        ("read", {}, True),
        ("snapshot", {}, False),
    ]


def test_a_word_that_says_what_to_do_cannot_be_left_out_alone() -> None:
    (command,) = commands(read_text("A: madvise h pageout len=1P"))
    assert unmodelled(command, {"madvise"}) == ["madvise pageout"]
    assert without(command, {"madvise"}) is None
    assert unmodelled(command, set()) == ["madvise"]


def test_a_machine_that_is_too_small_for_a_program_says_so_before_it_runs() -> None:
    box = Machine(MachineSpec(memory_bytes=80 * MIB))
    before = box.digest()
    with pytest.raises(ProgramError) as caught:
        box.run_program("spawn A\nA: mmap g 1P\nA: mmap h 1G populate\nsnapshot s\n")
    assert str(caught.value).startswith("line 3: mmap 1G populate: the machine is too small for it: ")
    assert str(caught.value).endswith(" of memory, 0 B of swap")
    assert box.digest() == before
