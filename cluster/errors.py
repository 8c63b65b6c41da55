"""The two ways a command fails, and the exit status of each.

What is wrong with the user's input is found before the first epoch and raised as ``InputError``; what goes
wrong afterwards is a ``RunFailed``. Both carry one line for the user; anything longer (a traceback of a
member) goes to the run's manifest.
"""

import enum


class ExitStatus(enum.IntEnum):
    """What the process ends with."""

    DONE = 0
    FAILED = 1  # a run or a check failed after it began
    WRONG_INPUT = 2  # usage, scenario, image, address, output folder: found before the first epoch
    INTERRUPTED = 130  # SIGINT
    TERMINATED = 143  # SIGTERM


class InputError(Exception):
    """Something the user gave is wrong; the message says what, where and which limit."""


class RunFailed(Exception):  # noqa: N818  # it reads as the event it is
    """A run ended before its time; ``detail`` is for the manifest, not for the terminal."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


class Stopped(BaseException):
    """SIGINT or SIGTERM arrived. Not an ``Exception``: nothing but the command may catch it."""

    def __init__(self, status: ExitStatus) -> None:
        super().__init__(status.name.lower())
        self.status = status


def one_line(error: BaseException) -> str:
    """Return the message of an error on one line, or its class where it has none."""
    text = " ".join(str(error).split())
    return text or type(error).__name__
