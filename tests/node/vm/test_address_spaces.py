"""Random processes against a model that shares nothing: each reads what it wrote, whatever is shared."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.invariants import check
from shared.constants import NIL, PAGE_SHIFT
from tests.models.address_space import AddressSpace
from tests.models.page_bytes import Pattern, with_first_byte
from tests.node.vm_machine import VmMachine

pytestmark = pytest.mark.three_ways

NR_PAGES = 12
MAX_PROCESSES = 4
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "write", "read", "read", "fork", "exit", "unmap", "map"]),
        st.integers(0, MAX_PROCESSES - 1),
        st.integers(0, NR_PAGES - 1),
        st.integers(1, 5),
    ),
    max_size=40,
)


class Pair:
    """A machine and the model of its processes, taken through the same steps."""

    def __init__(self) -> None:
        self.machine = VmMachine()
        self.free_at_start = self.machine.nr_free()
        mm = self.machine.spawn()
        self.base = self.machine.map(mm, NR_PAGES) >> PAGE_SHIFT
        self.processes: list[tuple[int, AddressSpace]] = [(mm, AddressSpace())]
        self.processes[0][1].map(self.base, NR_PAGES)
        self.pages: dict[bytes, int] = {}

    def step(self, what: str, which: int, page: int, number: int) -> None:
        """Take one step in both and compare what it returns."""
        if not self.processes:
            return
        mm, model = self.processes[which % len(self.processes)]
        vpn = self.base + page
        vaddr = vpn << PAGE_SHIFT
        if what == "write":
            assert (self.machine.write(mm, vaddr, number) != NIL) == model.access(vpn, number)
        elif what == "read":
            assert (self.machine.read(mm, vaddr) != NIL) == model.access(vpn, None)
            if vpn in model.mapped:
                self.compare(mm, model, vpn)
        elif what == "fork" and len(self.processes) < MAX_PROCESSES:
            self.processes.append((self.machine.fork(mm), model.fork()))
        elif what == "exit":
            self.machine.exit(mm)
            self.processes.remove((mm, model))
        elif what == "unmap":
            count = min(number, NR_PAGES - page)
            self.machine.unmap(mm, vaddr, count)
            model.unmap(vpn, count)
        elif what == "map" and not model.mapped:
            self.machine.map(mm, NR_PAGES)
            model.map(self.base, NR_PAGES)

    def compare(self, mm: int, model: AddressSpace, vpn: int) -> None:
        """Compare the content id of a page with the bytes that it has in the model."""
        page = with_first_byte(Pattern("same", 0).page(), model.written.get(vpn, 0))
        content = self.machine.content(mm, vpn << PAGE_SHIFT)
        assert self.pages.setdefault(page, content) == content
        assert len(set(self.pages.values())) == len(self.pages)

    def compare_all(self) -> None:
        """Compare every page that was written, and how many there are."""
        for mm, model in self.processes:
            for vpn in model.written:
                self.compare(mm, model, vpn)
            assert self.machine.state.mm[mm].nr_anon == len(model.written)


@settings(max_examples=40)
@given(STEPS)
def test_every_process_reads_what_it_wrote(steps: list[tuple[str, int, int, int]]) -> None:
    pair = Pair()
    for step in steps:
        pair.step(*step)
        check(pair.machine.state)
    pair.compare_all()
    for mm, _ in pair.processes:
        pair.machine.exit(mm)
    check(pair.machine.state)
    assert pair.machine.nr_free() == pair.free_at_start
