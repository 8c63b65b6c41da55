"""``KernelPanic``: a broken invariant inside a kernel, which is a defect of the program, never a result."""

from typing import Final

NO_PANIC: Final = 0
INDEX_OUTSIDE_TABLE: Final = 1
FIRST_INVARIANT: Final = 2  # codes from here on are node.state.Panic members


class KernelPanic(Exception):
    """Raised by an entry when a kernel found its state broken. ``code`` is a ``node.state.Panic`` value."""

    def __init__(self, code: int, message: str = "") -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"kernel panic {self.code}: {self.message}"
