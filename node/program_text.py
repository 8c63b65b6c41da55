"""The text of a workload program: lines into commands, numbers into integers, with errors that say where.

    #! desc: ...                header lines, ``#! key: value``
    repeat 3                    loops; $i is the index of the innermost, $j of the one outside it
      A: write h len=64P val=$i
    end

Numbers are sums of products with the suffixes K, M, G and P (4096): ``8M+1P*$i``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from shared.constants import GIB, KIB, MIB, PAGE_SIZE

SUFFIXES: Final = {"K": KIB, "M": MIB, "G": GIB, "P": PAGE_SIZE}
MAX_LINES_RUN: Final = 1_000_000
_TERM: Final = re.compile(r"(0x[0-9a-fA-F]+|\d+)([KMGP]?)$")


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

    def number(self, name: str, default: int | None = None) -> int:
        """Return option ``name`` as a number."""
        text = self.options.get(name)
        if text is None:
            if default is None:
                raise self.fail(f"{self.verb} needs {name}=")
            return default
        return self.parse(text)

    def word(self, index: int, what: str) -> str:
        """Return the word behind the verb at ``index``."""
        if index >= len(self.words):
            raise self.fail(f"{self.verb} needs {what}")
        return self.words[index]

    def parse(self, text: str) -> int:
        """Return the value of a number."""
        try:
            return parse_number(text)
        except ValueError as error:
            raise self.fail(str(error)) from None


def parse_number(text: str) -> int:
    """Return the value of a sum of products such as ``8M+1P*3``. Raises ValueError for anything else."""
    total = 0
    for product in text.split("+"):
        value = 1
        for term in product.split("*"):
            match = _TERM.fullmatch(term)
            if match is None:
                raise ValueError(f"{text!r} is not a number such as 512P or 8M+1P*3")
            value *= int(match[1], 0) * SUFFIXES.get(match[2], 1)
        total += value
    return total


@dataclass(slots=True)
class Text:
    """A program's header and its lines, numbered from 1, comments and blank lines left out."""

    header: dict[str, str] = field(default_factory=dict)
    lines: list[tuple[int, str]] = field(default_factory=list)


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
        elif line and not line.startswith("#"):
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
    at = first
    while at < behind:
        number, line = lines[at]
        if line.split()[0] == "repeat":
            end = _end_of(lines, at, behind)
            try:
                count = parse_number(line.split()[1])
            except (IndexError, ValueError):
                raise ProgramError(f"line {number}: repeat needs a number") from None
            for index in range(count):
                yield from _unroll(lines, at + 1, end, (*indices, index))
            at = end + 1
        elif line == "end":
            raise ProgramError(f"line {number}: end without repeat")
        else:
            yield number, line, indices
            at += 1


def _end_of(lines: list[tuple[int, str]], at: int, behind: int) -> int:
    depth = 0
    for index in range(at, behind):
        word = lines[index][1].split()[0]
        depth += (word == "repeat") - (word == "end")
        if depth == 0:
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
        raise ProgramError(f"line {number}: {process}: does nothing")
    options = dict(word.split("=", 1) for word in words[1:] if "=" in word)
    plain = tuple(word for word in words[1:] if "=" not in word)
    return Command(number, process, words[0], plain, options, background)
