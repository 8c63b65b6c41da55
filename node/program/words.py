r"""The words of the workload language: what each command takes, and which of it is not modelled yet.

    A: mmap h 8M file=/mnt/f4 shrd             line 3: 'shrd' is not understood: expected
       |    |  |  |           |                    mmap NEW SIZE [shared] [file=PATH] [off=OFFSET] ...
       |    |  |  option      flag? none
       |    NEW SIZE
       verb

``LANGUAGE`` has a line a command, as a manual page would. Capitals stand for what a word has to be (``KINDS``), other
words for themselves, ``a|b`` for one of several; what stands in brackets may be left out, and flags and options come
in any order behind the rest. ``check_words`` holds a command against its line, before anything of the program runs.

A command is *modelled* if there is a function for its verb and none of its words is in ``LATER``. What is missing
has a name, the same wherever it is told: ``fopen``, ``mmap file=``, ``madvise cold``, ``&``.
"""

import re
from collections.abc import Container, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from node.program.text import MAX_NUMBER, MAX_WORD64, Command, ProgramError
from shared.constants import PAGE_SIZE

RANGE: Final = "[off=OFFSET] [len=LENGTH]"
ADVICE: Final = (
    "normal|random|sequential|willneed|dontneed|free|remove|dontfork|dofork|mergeable|unmergeable|hugepage|"
    "nohugepage|dontdump|dodump|wipeonfork|keeponfork|cold|pageout|populate_read|populate_write|collapse"
)
RANDOMLY: Final = "[rand] [count=COUNT] [seed=WORD64]"
ACCESS: Final = f"[back] [off=NUMBER] [len=LENGTH] [stride=LENGTH] [loops=COUNT] [val=NUMBER] {RANDOMLY}"
CONTROLLER_LANGUAGE: Final = """
spawn PROCESS [cg=GROUP] [oom=ADJUSTMENT]
cgroup GROUP [*=VALUE]
snapshot NAME
watchfile PATH ...
sync
drop_caches 1|2|3
compact
sleep NUMBER
set PATH VALUE
kill PROCESS
wait PROCESS
ksm FILE VALUE ...
ksm_scan COUNT
ksm_step COUNT PAGES
ksm_wait NUMBER
"""
PROCESS_LANGUAGE: Final = f"""
mmap NEW SIZE [shared] [ro|none] [populate] [locked] [noreserve] [at=ADDRESS] [align=SIZE] [file=PATH] [off=OFFSET]
munmap MAPPING {RANGE}
mprotect MAPPING rw|ro|none {RANGE}
madvise MAPPING {ADVICE} {RANGE} [stride=LENGTH] [size=LENGTH]
mlock MAPPING [off=NUMBER] [len=LENGTH]
mlockonfault MAPPING [off=NUMBER] [len=LENGTH]
munlock MAPPING [off=NUMBER] [len=LENGTH]
msync MAPPING {RANGE}
mremap MAPPING SIZE
brk NEW SIZE
brkgrow NEW SIZE
brkshrink MAPPING SIZE
stack SIZE
read MAPPING {ACCESS}
write MAPPING {ACCESS}
fill MAPPING PATTERN {RANGE}
try MAPPING read|write [off=NUMBER] [len=LENGTH]
copyto MAPPING [off=NUMBER] [len=LENGTH]
copyfrom MAPPING [off=NUMBER] [len=LENGTH]
fork PROCESS
exit
vfork_exec
fopen NEW PATH [create] [direct]
fclose HANDLE
fsync HANDLE
ftrunc HANDLE NUMBER
readahead HANDLE NUMBER LENGTH
fadvise HANDLE NUMBER NUMBER normal|random|sequential|willneed|dontneed|noreuse
fread HANDLE NUMBER LENGTH [chunk=LENGTH] [stride=LENGTH]
fwrite HANDLE NUMBER LENGTH [chunk=LENGTH] [stride=LENGTH]
frand HANDLE NUMBER LENGTH count=COUNT seed=WORD64 [chunk=LENGTH]
fwrand HANDLE NUMBER LENGTH count=COUNT seed=WORD64 [chunk=LENGTH]
"""

# Words of modelled commands whose mechanism is not modelled yet. A verb that is not modelled at all is not listed.
BACKGROUND: Final = "&"
MODELLED_ADVICE: Final = (
    *("normal", "random", "sequential", "willneed", "dontneed", "free", "cold"),
    *("mergeable", "unmergeable", "hugepage", "nohugepage", "populate_read", "populate_write"),
)
LATER: Final = frozenset(
    {
        "spawn cg=",
        *(f"madvise {advice}" for advice in ADVICE.split("|") if advice not in MODELLED_ADVICE),
    }
)

ADJUSTMENTS: Final = 1000  # of oom_score_adj, to both sides
PATTERNS: Final = {
    "zero": 0,
    "const": 1,
    "same": 1,
    "uniq": 1,
    "mod": 2,
    "half": 1,
    "text": 1,
}  # numbers behind
_NAME: Final = re.compile(r"[A-Za-z0-9_]+")
_TOKEN: Final = re.compile(r"\[(.*?)\]|(\S+)")


@dataclass(frozen=True, slots=True)
class Kind:
    """What a word in capitals has to be: how an error calls it, and the numbers that it may be."""

    what: str
    least: int = 0
    most: int = -1  # -1: it is no number
    step: int = 1


KINDS: Final = {
    "NEW": Kind("a name"),
    "NAME": Kind("a name"),
    "PROCESS": Kind("a process"),
    "MAPPING": Kind("a mapping"),
    "HANDLE": Kind("an open file"),
    "GROUP": Kind("a cgroup"),
    "PATH": Kind("a path"),
    "FILE": Kind("a file of /sys/kernel/mm/ksm"),
    "VALUE": Kind("a value"),
    "PATTERN": Kind("a pattern: zero const:B uniq:S mod:K:S same:S half:S text:S"),
    "ADJUSTMENT": Kind(f"a number from -{ADJUSTMENTS} to {ADJUSTMENTS}"),
    "SIZE": Kind(
        "a size", 1, MAX_NUMBER // PAGE_SIZE * PAGE_SIZE
    ),  # rounded up to pages, it is a number still
    "LENGTH": Kind("a length", 1, MAX_NUMBER),
    "COUNT": Kind("a number", 1, MAX_NUMBER),
    "PAGES": Kind("a number of pages", 1, MAX_NUMBER),
    "NUMBER": Kind("a number", 0, MAX_NUMBER),
    "OFFSET": Kind("an offset", 0, MAX_NUMBER, PAGE_SIZE),
    "ADDRESS": Kind("an address", 0, MAX_NUMBER),
    "WORD64": Kind("a number", 0, MAX_WORD64),
}


@dataclass(slots=True)
class Shape:
    """A command's line of the language, taken apart."""

    usage: str
    words: list[str] = field(default_factory=list)  # in order
    repeated: bool = False  # the words may come again
    flags: list[tuple[str, ...]] = field(default_factory=list)  # one of each at most
    options: dict[str, str] = field(default_factory=dict)
    needed: set[str] = field(default_factory=set)  # options that have to be there

    @property
    def any_option(self) -> str:
        """What the value of an option of any name has to be, or "": there are only those of ``options``."""
        return self.options.get("*", "")


def _shapes(language: str) -> dict[str, Shape]:
    shapes = {}
    for line in language.strip().splitlines():
        verb, _, rest = line.partition(" ")
        shape = shapes[verb] = Shape(line)
        for optional, word in _TOKEN.findall(rest):
            name, equals, kind = (optional or word).partition("=")
            if equals:
                shape.options[name] = kind
                if word:
                    shape.needed.add(name)
            elif optional:
                shape.flags.append(tuple(name.split("|")))
            elif name == "...":
                shape.repeated = True
            else:
                shape.words.append(name)
    return shapes


CONTROLLER_SHAPES: Final = _shapes(CONTROLLER_LANGUAGE)
PROCESS_SHAPES: Final = _shapes(PROCESS_LANGUAGE)


def shape_of(command: Command) -> Shape:
    """Return the shape of a command. Raises ``ProgramError`` for a verb that is not in the language."""
    own, others = CONTROLLER_SHAPES, PROCESS_SHAPES
    if command.process:
        own, others = others, own
    if command.verb in own:
        return own[command.verb]
    who = "a process" if command.process else "the controller"
    if command.verb in others:
        expected = others[command.verb].usage if command.process else f"A: {others[command.verb].usage}"
        raise command.fail(f"{command.verb!r} is no command of {who}: expected {expected}")
    raise command.fail(f"{command.verb!r} is no command of {who}: expected one of {' '.join(own)}")


def check_words(command: Command) -> None:
    """Hold a command against its line of the language. Raises ``ProgramError``, in one line."""
    shape = shape_of(command)
    nr_words = len(shape.words)
    given = command.words
    for index, kind in enumerate(shape.words):
        if index >= len(given):
            raise command.fail(f"{command.verb} needs {_what(kind)}: expected {shape.usage}")
        check_word(command, kind, given[index], given[index])
    behind = given[nr_words:]
    if shape.repeated:
        if len(given) % nr_words:
            raise command.fail(f"{command.verb} needs {_what(shape.words[-1])}: expected {shape.usage}")
        behind = ()
    free = list(shape.flags)
    for word in behind:
        group = next((group for group in free if word in group), None)
        if group is None:
            raise command.fail(f"{word!r} is not understood: expected {shape.usage}")
        free.remove(group)
    for name, text in command.options.items():
        kind = shape.options.get(name, shape.any_option)
        if not kind:
            raise command.fail(f"{f'{name}={text}'!r} is not understood: expected {shape.usage}")
        check_word(command, kind, text, f"{name}={text}")
    needed = shape.needed | ({"count", "seed"} if "rand" in behind else set())
    for name in sorted(needed - command.options.keys()):
        raise command.fail(f"{command.verb} needs {name}=: expected {shape.usage}")


def _what(kind: str) -> str:
    return KINDS[kind].what if kind in KINDS else f"one of {kind.replace('|', ' ')}"


def check_word(command: Command, kind: str, text: str, token: str) -> None:
    """Check one word, or the value of an option; ``token`` is as it stands in the line."""
    if kind not in KINDS:
        good = text in kind.split("|")
    elif kind == "PROCESS":
        good = _NAME.fullmatch(text) is not None
    elif kind == "PATTERN":
        return _check_pattern(command, text)
    elif kind == "ADJUSTMENT":
        good = re.fullmatch(r"-?[0-9]{1,4}", text) is not None and abs(int(text)) <= ADJUSTMENTS
    elif KINDS[kind].most >= 0:
        return _check_number(command, KINDS[kind], text, token)
    else:
        good = bool(text)
    if not good:
        raise command.fail(f"{token!r}: expected {_what(kind)}")
    return None


def _check_number(command: Command, kind: Kind, text: str, token: str) -> None:
    value = command.parse(text, kind.most)
    if value < kind.least:
        raise command.fail(f"{token!r} is {value}: expected {kind.what} of {kind.least} or more")
    if value % kind.step:
        raise command.fail(f"{token!r} is not a multiple of {kind.step}")


def _check_pattern(command: Command, text: str) -> None:
    name, *numbers = text.split(":")
    if PATTERNS.get(name) != len(numbers):
        raise command.fail(f"{text!r}: expected {_what('PATTERN')}")
    for number in numbers:
        command.parse(number, MAX_WORD64)


# --- what is modelled -----------------------------------------------------------------------------------


def _features(command: Command) -> Iterator[tuple[str, str]]:
    """Yield the words of a command that may be modelled or not: the feature's name, and the word."""
    shape = shape_of(command)
    for kind, word in zip(shape.words, command.words, strict=False):
        if kind not in KINDS:
            yield f"{command.verb} {word}", ""
    if not shape.repeated:
        for word in command.words[len(shape.words) :]:
            yield f"{command.verb} {word}", word
    for name in command.options:
        yield f"{command.verb} {name}=", f"{name}="
    if command.background:
        yield BACKGROUND, BACKGROUND


def unmodelled(command: Command, modelled: Container[str]) -> list[str]:
    """Return the names of what a command needs that is not modelled; ``modelled`` has the verbs that are."""
    if command.verb not in modelled:
        path = f" {command.words[0]}" if command.verb == "set" else ""
        return [command.verb + path]
    return [name for name, _ in _features(command) if name in LATER]


def without(command: Command, modelled: Container[str]) -> Command | None:
    """Return a command without its words that are not modelled, or None if nothing is left of it."""
    if command.verb not in modelled:
        return None
    dropped = {word for name, word in _features(command) if name in LATER}
    if "" in dropped:
        return None
    nr_words = len(shape_of(command).words)
    return replace(
        command,
        words=(
            *command.words[:nr_words],
            *(word for word in command.words[nr_words:] if word not in dropped),
        ),
        options={name: text for name, text in command.options.items() if f"{name}=" not in dropped},
        background=command.background and BACKGROUND not in dropped,
    )


__all__ = [
    "CONTROLLER_SHAPES",
    "LATER",
    "PROCESS_SHAPES",
    "ProgramError",
    "check_words",
    "shape_of",
    "unmodelled",
    "without",
]
