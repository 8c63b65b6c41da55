"""The text of a workload program: lines into commands, numbers into integers, with errors that say where.

    #! desc: ...                header lines, ``#! key: value``
    repeat 3                    loops; $i is the index of the innermost, $j of the one outside it
      A: write h len=64P val=$i
    end

Numbers are sums of products with the suffixes K, M, G and P (4096): ``8M+1P*$i``. They are below 2**63; a seed or an
8-byte value, which may be any 64 bits, is below 2**64. ``#`` starts a comment, at a line's start or behind a blank.
What the commands are is not said here: node/program/words.py has them all.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from shared.constants import GIB, KIB, MIB, PAGE_SIZE

SUFFIXES: Final = {"K": KIB, "M": MIB, "G": GIB, "P": PAGE_SIZE}
MAX_LINES_RUN: Final = 1_000_000
MAX_NESTING: Final = 16
LONGEST_SHOWN: Final = 40  # characters of a wrong number that an error repeats
MAX_NUMBER: Final = (1 << 63) - 1
MAX_WORD64: Final = (1 << 64) - 1
_TERM: Final = re.compile(r"(0x[0-9a-fA-F]{1,24}|[0-9]{1,24})([KMGP]?)")
_COMMENT: Final = re.compile(r"(?:^|\s)#.*")


class ProgramError(ValueError):
    """A program that is wrong: one line that says where and what."""


@dataclass(frozen=True, slots=True)
class Command:
    """One line, with loop variables filled in: who does what to what, with which options."""

    line: int  # from 1
    process: str  # "" for the controller
    verb: str
    words: tuple[str, ...]
    options: dict[str, str]
    background: bool = False

    def fail(self, reason: str) -> ProgramError:
        """Return the error that says this line is wrong."""
        return ProgramError(f"line {self.line}: {reason}")

    def number(self, name: str, default: int | None = None, *, maximum: int = MAX_NUMBER) -> int:
        """Return option ``name`` as a number."""
        text = self.options.get(name)
        if text is None:
            if default is None:
                raise self.fail(f"{self.verb} needs {name}=")
            return default
        return self.parse(text, maximum)

    def word(self, index: int, what: str) -> str:
        """Return the word behind the verb at ``index``."""
        if index >= len(self.words):
            raise self.fail(f"{self.verb} needs {what}")
        return self.words[index]

    def parse(self, text: str, maximum: int = MAX_NUMBER) -> int:
        """Return the value of a number."""
        try:
            return parse_number(text, maximum)
        except ValueError as error:
            raise self.fail(str(error)) from None


def parse_number(text: str, maximum: int = MAX_NUMBER) -> int:
    """Return the value of a sum of products such as ``8M+1P*3``.

    Raises ValueError, in one line, for anything else and for a number above ``maximum``.
    """
    shown = repr(text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}...")
    total = 0
    for product in text.split("+"):
        value = 1
        for term in product.split("*"):
            match = _TERM.fullmatch(term)
            if match is None:
                raise ValueError(f"{shown} is not a number such as 512P or 8M+1P*3")
            value *= int(match[1], 16 if match[1].startswith("0x") else 10) * SUFFIXES.get(match[2], 1)
            if value > maximum:
                break  # before a long product becomes a long number
        total += value
    if total > maximum:
        bits = maximum.bit_length()
        limit = f"below 2**{bits}" if maximum == (1 << bits) - 1 else f"at most {maximum}"
        raise ValueError(f"{shown} is too large: a number here is {limit}")
    return total


@dataclass(slots=True)
class Text:
    """A program's header and its lines, numbered from 1, comments and blank lines left out."""

    header: dict[str, str] = field(default_factory=dict)
    lines: list[tuple[int, str]] = field(default_factory=list)

    def files(self) -> dict[str, int]:
        """Return the files that header line ``files: PATH=SIZE ...`` makes, with their sizes in bytes."""
        found = {}
        for word in self.header.get("files", "").split():
            path, _, size = word.partition("=")
            try:
                found[path] = parse_number(size)
            except ValueError:
                raise ProgramError(f"#! files: {word!r} is not PATH=SIZE, as /data=64M") from None
        return found


def read_text(text: str) -> Text:
    """Split a program into its header and its lines."""
    result = Text()
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if line.startswith("#!"):
            key, colon, value = line[2:].partition(":")
            if not colon:
                raise ProgramError(f"line {number}: a header line is '#! key: value'")
            result.header[key.strip()] = value.strip()
        elif line := _COMMENT.sub("", line).strip():
            result.lines.append((number, line))
    return result


def commands(text: Text) -> Iterator[Command]:
    """Yield the commands in the order in which they run, loops unrolled."""
    for nr_run, (number, line, indices) in enumerate(_unroll(text.lines, 0, len(text.lines), ())):
        if nr_run >= MAX_LINES_RUN:
            raise ProgramError(f"line {number}: the program runs more than {MAX_LINES_RUN} lines")
        for name, index in zip("ijk", reversed(indices), strict=False):
            line = line.replace(f"${name}", str(index))  # noqa: PLW2901 (the line as it runs now)
        yield _command(number, line)


def _unroll(
    lines: list[tuple[int, str]], first: int, behind: int, indices: tuple[int, ...]
) -> Iterator[tuple[int, str, tuple[int, ...]]]:
    if len(indices) > MAX_NESTING:
        raise ProgramError(f"line {lines[first][0]}: repeat within more than {MAX_NESTING} others")
    at = first
    while at < behind:
        number, line = lines[at]
        word = line.split()[0]
        if word == "repeat":
            end = _end_of(lines, at, behind)
            for index in range(_how_often(number, line)):
                yield from _unroll(lines, at + 1, end, (*indices, index))
            at = end + 1
        elif word == "end":
            raise ProgramError(f"line {number}: end without repeat")
        else:
            yield number, line, indices
            at += 1


def _how_often(number: int, line: str) -> int:
    words = line.split()
    if len(words) != 2:  # noqa: PLR2004 (repeat and a number)
        raise ProgramError(f"line {number}: {line!r}: expected repeat and one number")
    try:
        count = parse_number(words[1])
    except ValueError as error:
        raise ProgramError(f"line {number}: repeat: {error}") from None
    if count == 0:
        raise ProgramError(f"line {number}: repeat: {words[1]!r} is 0, expected 1 or more")
    return count


def _end_of(lines: list[tuple[int, str]], at: int, behind: int) -> int:
    depth = 0
    for index in range(at, behind):
        number, line = lines[index]
        word = line.split()[0]
        if word == "end" and line != word:
            raise ProgramError(f"line {number}: {line!r}: expected end alone")
        depth += (word == "repeat") - (word == "end")
        if depth == 0:
            if index == at + 1:
                # Nothing would ever count towards MAX_LINES_RUN.
                raise ProgramError(f"line {lines[at][0]}: repeat of nothing: expected a command before end")
            return index
    raise ProgramError(f"line {lines[at][0]}: repeat without end")


def _command(number: int, line: str) -> Command:
    process = ""
    background = False
    match = re.match(r"([A-Za-z0-9_]+)(&?):\s*(.*)$", line)
    if match:
        process, ampersand, line = match.groups()
        background = bool(ampersand)
    words = line.split()
    if not words:
        raise ProgramError(f"line {number}: {process}: does nothing, expected a command")
    options: dict[str, str] = {}
    for word in words[1:]:
        name, equals, value = word.partition("=")
        if equals and name in options:
            raise ProgramError(f"line {number}: {word!r}: {name}= is there twice")
        if equals:
            options[name] = value
    plain = tuple(word for word in words[1:] if "=" not in word)
    return Command(number, process, words[0], plain, options, background)
