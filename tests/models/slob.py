"""What SLOB does, told plainly: a page is a row of units that are in use or not."""

UNITS = 2048
UNIT_BYTES = 2
FIRST_FIT_ONE_LIST, FIRST_FIT_THREE_LISTS, BEST_FIT = range(3)


class SlobPage:
    """A page: which of its units are in use."""

    def __init__(self, pfn: int) -> None:
        self.pfn = pfn
        self.in_use = [False] * UNITS

    def free_runs(self) -> list[tuple[int, int]]:
        """Return (first, length) of each run of free units."""
        runs = []
        first = None
        for unit, used in enumerate([*self.in_use, True]):
            if not used and first is None:
                first = unit
            if used and first is not None:
                runs.append((first, unit - first))
                first = None
        return runs

    def place(self, units: int, align: int, offset: int, best: bool) -> int | None:
        """Return the unit at which an object goes, or None."""
        fitting = []
        for first, length in self.free_runs():
            at = next(
                unit
                for unit in range(first, UNITS + align + 1)
                if not align or (unit * 2 + offset) % align == 0
            )
            if at + units <= first + length:
                fitting.append((length, first, at))
        if not fitting:
            return None
        return min(fitting)[2] if best else fitting[0][2]


class SlobModel:
    """SLOB with one of its policies."""

    def __init__(self, policy: int) -> None:
        self.policy = policy
        self.pages: dict[int, SlobPage] = {}
        self.lists: list[list[SlobPage]] = [[], [], []]

    def list_for(self, size: int) -> list[SlobPage]:
        if self.policy == FIRST_FIT_ONE_LIST or size < 256:
            return self.lists[0]
        return self.lists[1] if size < 1024 else self.lists[2]

    def find(self, size: int, align: int, offset: int) -> tuple[SlobPage, int] | None:
        """Return where an object goes, if a page has room for it."""
        pages = self.list_for(size)
        for number, page in enumerate(pages):
            at = page.place(-(-size // UNIT_BYTES), align, offset, self.policy == BEST_FIT)
            if at is not None:
                pages[:] = pages[number:] + pages[:number]
                return page, at
        return None

    def take(self, pfn: int, unit: int, size: int) -> None:
        """Note that an object lies in a page, which is a new one if it is not known."""
        if pfn not in self.pages:
            self.pages[pfn] = SlobPage(pfn)
            self.list_for(size).insert(0, self.pages[pfn])
        page = self.pages[pfn]
        units = -(-size // UNIT_BYTES)
        assert not any(page.in_use[unit : unit + units])
        page.in_use[unit : unit + units] = [True] * units
        if all(page.in_use):
            self.unlist(page)

    def give(self, pfn: int, unit: int, size: int) -> None:
        """Take an object back."""
        page = self.pages[pfn]
        units = -(-size // UNIT_BYTES)
        was_full = all(page.in_use)
        page.in_use[unit : unit + units] = [False] * units
        if not any(page.in_use):
            self.unlist(page)
            del self.pages[pfn]
        elif was_full:
            self.list_for(size).insert(0, page)

    def unlist(self, page: SlobPage) -> None:
        for pages in self.lists:
            if page in pages:
                pages.remove(page)
