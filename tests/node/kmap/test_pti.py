import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.counters import Knob
from node.hw.paging import PAGING_MODES, PagingMode
from node.hw.pte import NX, PFN_MASK, TABLE_BITS, Pte
from node.kmap.kernel_tables import KernelLayout
from node.kmap.memory_map import RegionName, signed
from node.kmap.pti import init_pgd, set_pgd, sync_pgd_fault, user_pgd_position
from node.state import State
from shared.constants import PAGE_SHIFT, PAGE_SIZE
from shared.jit import entry
from tests.models.pti import PairModel
from tests.node.kmap.kernel_machine import FRAMES_512_MIB, kernel_machine, leaves, walk

pytestmark = pytest.mark.three_ways

FIRST_PROCESS = 20000
SECOND_PROCESS = 20002
A_TABLE = 20100
A_FRAME = 20200
KERNELS = [("6.1", PagingMode.LEVEL_4), ("6.1", PagingMode.LEVEL_5), ("lecture", PagingMode.LEVEL_4)]
ENTRIES = 512


@entry
def set_pgd_entry(state: State, position: int, word: int) -> None:
    set_pgd(state, position, word)


@entry
def init_pgd_entry(state: State, pgd_pfn: int) -> None:
    init_pgd(state, pgd_pfn)


@entry
def sync_pgd_fault_entry(state: State, pgd_pfn: int, vaddr: int) -> int:
    return sync_pgd_fault(state, pgd_pfn, vaddr)


@entry
def user_pgd_position_entry(_state: State, position: int) -> int:
    return user_pgd_position(position)


def table(state: State, pfn: int) -> list[int]:
    shift = state.knob[Knob.TABLE_SHIFT]
    return [int(word) for word in state.pt_word[pfn << shift : (pfn + 1) << shift]]


def table_word(pfn: int) -> int:
    return pfn << PAGE_SHIFT | TABLE_BITS


@pytest.mark.parametrize(("era", "mode"), KERNELS)
def test_the_user_copy_maps_nothing_of_the_kernel_but_what_enters_it(era: str, mode: PagingMode) -> None:
    layout = KernelLayout(FRAMES_512_MIB, mode, era, cpus=4)
    state, plan = kernel_machine(layout)
    init_pgd_entry(state, FIRST_PROCESS)
    found = leaves(state, FIRST_PROCESS + 1)
    area = layout.region(RegionName.CPU_ENTRY_AREA)
    text = 0xFFFFFFFF80000000 + layout.entry_text.first * PAGE_SIZE
    elsewhere = [leaf for leaf in found if not area.start <= leaf.vaddr <= area.end]
    assert [(leaf.vaddr, leaf.pfn, leaf.shift) for leaf in elsewhere] == (
        [(text, layout.entry_text.first, 21)] if era == "6.1" else []
    )
    in_kernel_copy = [
        leaf for leaf in leaves(state, plan.swapper_pgd) if area.start <= leaf.vaddr <= area.end
    ]
    assert [leaf for leaf in found if leaf not in elsewhere] == in_kernel_copy
    # User mode reaches none of it: no entry allows that.
    assert not [leaf for leaf in found if leaf.word & Pte.USER]


@pytest.mark.parametrize(
    ("era", "mode", "present"),
    [
        ("6.1", PagingMode.LEVEL_4, [508, 511]),
        ("6.1", PagingMode.LEVEL_5, [511]),
        ("lecture", PagingMode.LEVEL_4, [508]),
    ],
)
def test_the_user_copys_top_level_has_these_entries_alone(
    era: str, mode: PagingMode, present: list[int]
) -> None:
    state, _ = kernel_machine(KernelLayout(FRAMES_512_MIB, mode, era))
    init_pgd_entry(state, FIRST_PROCESS)
    user = table(state, FIRST_PROCESS + 1)
    assert [index for index, word in enumerate(user) if word] == present
    kernel_copy = table(state, FIRST_PROCESS)
    if mode == PagingMode.LEVEL_4:
        # The whole entry of cpu_entry_area is shared; the one of the kernel's text leads to tables apart.
        assert user[508] == kernel_copy[508]
    assert user[511] != kernel_copy[511]


@pytest.mark.parametrize(("era", "mode"), KERNELS)
@pytest.mark.parametrize("pti", [True, False])
def test_all_processes_share_the_kernels_tables(era: str, mode: PagingMode, pti: bool) -> None:
    state, plan = kernel_machine(KernelLayout(FRAMES_512_MIB, mode, era, pti=pti))
    for pgd in (FIRST_PROCESS, SECOND_PROCESS):
        init_pgd_entry(state, pgd)
        assert table(state, pgd)[256:] == table(state, plan.swapper_pgd)[256:]
        assert not any(table(state, pgd)[:256])
        if pti:
            assert table(state, pgd + 1) == table(state, plan.swapper_pgd + 1)
        else:
            assert not any(table(state, pgd + 1))


def test_a_new_pair_forgets_what_its_frames_held() -> None:
    state, _ = kernel_machine(KernelLayout(FRAMES_512_MIB))
    shift = state.knob[Knob.TABLE_SHIFT]
    state.pt_word[FIRST_PROCESS << shift : (FIRST_PROCESS + 2) << shift] = -1
    init_pgd_entry(state, FIRST_PROCESS)
    assert not any(table(state, FIRST_PROCESS)[:256])
    assert not any(table(state, FIRST_PROCESS + 1)[:256])
    assert -1 not in table(state, FIRST_PROCESS) + table(state, FIRST_PROCESS + 1)


def test_user_space_is_in_both_copies_and_cannot_be_executed_by_the_kernel() -> None:
    state, _ = kernel_machine(KernelLayout(FRAMES_512_MIB))
    init_pgd_entry(state, FIRST_PROCESS)
    position = (FIRST_PROCESS << 9) + 7
    set_pgd_entry(state, position, table_word(A_TABLE))
    assert state.pt_word[position] == table_word(A_TABLE) | NX
    assert state.pt_word[user_pgd_position_entry(state, position)] == table_word(A_TABLE)
    assert user_pgd_position_entry(state, position) == ((FIRST_PROCESS + 1) << 9) + 7
    set_pgd_entry(state, position, 0)
    assert state.pt_word[position] == 0
    assert state.pt_word[((FIRST_PROCESS + 1) << 9) + 7] == 0


def test_without_isolation_there_is_one_copy_and_no_poison() -> None:
    state, _ = kernel_machine(KernelLayout(FRAMES_512_MIB, pti=False))
    init_pgd_entry(state, FIRST_PROCESS)
    set_pgd_entry(state, FIRST_PROCESS << 9, table_word(A_TABLE))
    assert state.pt_word[FIRST_PROCESS << 9] == table_word(A_TABLE)
    assert not any(table(state, FIRST_PROCESS + 1))


def test_an_executable_firmware_mapping_is_not_poisoned() -> None:
    state, _ = kernel_machine(KernelLayout(FRAMES_512_MIB))
    init_pgd_entry(state, FIRST_PROCESS)
    word = table_word(A_TABLE) & ~Pte.USER
    set_pgd_entry(state, FIRST_PROCESS << 9, word)
    assert state.pt_word[FIRST_PROCESS << 9] == word


WORDS = st.sampled_from([0, table_word(A_TABLE), table_word(A_FRAME), table_word(A_TABLE) & ~Pte.USER])


@given(
    pti=st.booleans(),
    writes=st.lists(st.tuples(st.integers(0, ENTRIES - 1), WORDS), max_size=40),
)
@settings(max_examples=30)
def test_a_pair_is_what_its_model_says(pti: bool, writes: list[tuple[int, int]]) -> None:
    state, plan = kernel_machine(KernelLayout(18432, pti=pti))
    pgd = 16000
    master_user = table(state, plan.swapper_pgd + 1) if pti else [0] * ENTRIES
    model = PairModel(256, pti, table(state, plan.swapper_pgd), master_user)
    init_pgd_entry(state, pgd)
    for index, word in writes:
        set_pgd_entry(state, (pgd << 9) + index, word)
        model.set(index, word)
    assert table(state, pgd) == model.kernel_copy
    assert table(state, pgd + 1) == (model.user_copy if pti else [0] * ENTRIES)


# --- deferred entries ---------------------------------------------------------------------------------------


def add_to_vmalloc(state: State, layout: KernelLayout, pgd: int, vaddr: int) -> None:
    """Map A_FRAME at a vmalloc address in the master table; tables that are missing are A_TABLE and the next."""
    mode = PAGING_MODES[layout.mode]
    table_pfn = pgd
    new = A_TABLE
    for number, level in enumerate(mode.levels):
        index = (vaddr >> level.shift) % (1 << mode.table_shift)
        position = (table_pfn << mode.table_shift) + index
        if number == len(mode.levels) - 1:
            state.pt_word[position] = A_FRAME << PAGE_SHIFT | Pte.PRESENT | Pte.WRITE
        elif not state.pt_word[position] and number == 0:
            set_pgd_entry(state, position, table_word(new))
            new += 1
        elif not state.pt_word[position]:
            state.pt_word[position] = table_word(new)
            new += 1
        table_pfn = state.pt_word[position] >> PAGE_SHIFT & PFN_MASK


DEFERRING = [
    KernelLayout(FRAMES_512_MIB, era="lecture"),
    KernelLayout(FRAMES_512_MIB, era="lecture", pti=False),
    KernelLayout(FRAMES_512_MIB, PagingMode.BITS_32, "lecture", pti=False),
    KernelLayout(FRAMES_512_MIB, PagingMode.BITS_32, "6.1", pti=False),
]


@pytest.mark.parametrize("layout", DEFERRING)
def test_processes_get_a_new_entry_of_the_kernel_by_a_fault_each(layout: KernelLayout) -> None:
    state, plan = kernel_machine(layout)
    init_pgd_entry(state, FIRST_PROCESS)
    init_pgd_entry(state, SECOND_PROCESS)
    vaddr = layout.region(RegionName.VMALLOC).start + 5 * PAGE_SIZE
    add_to_vmalloc(state, layout, plan.swapper_pgd, vaddr)
    for pgd in (FIRST_PROCESS, SECOND_PROCESS):
        assert walk(state, pgd, vaddr) is None
        assert sync_pgd_fault_entry(state, pgd, signed(vaddr)) == 1
        found = walk(state, pgd, vaddr)
        assert found is not None
        assert found.pfn == A_FRAME
        # Once there, a fault has another cause.
        assert sync_pgd_fault_entry(state, pgd, signed(vaddr)) == 0
    kernel_index = layout.kernel_pgd_index
    assert table(state, FIRST_PROCESS)[kernel_index:] == table(state, SECOND_PROCESS)[kernel_index:]
    if layout.pti:
        assert table(state, FIRST_PROCESS + 1) == table(state, plan.swapper_pgd + 1)


def test_an_entry_of_one_process_does_not_help_another() -> None:
    layout = DEFERRING[0]
    state, plan = kernel_machine(layout)
    init_pgd_entry(state, FIRST_PROCESS)
    init_pgd_entry(state, SECOND_PROCESS)
    vaddr = layout.region(RegionName.VMALLOC).start
    add_to_vmalloc(state, layout, plan.swapper_pgd, vaddr)
    assert sync_pgd_fault_entry(state, FIRST_PROCESS, signed(vaddr)) == 1
    assert walk(state, SECOND_PROCESS, vaddr) is None


def test_an_entry_that_maps_other_pages_is_copied_but_mends_nothing() -> None:
    layout = DEFERRING[0]
    state, plan = kernel_machine(layout)
    init_pgd_entry(state, FIRST_PROCESS)
    vaddr = layout.region(RegionName.VMALLOC).start
    add_to_vmalloc(state, layout, plan.swapper_pgd, vaddr)
    assert sync_pgd_fault_entry(state, FIRST_PROCESS, signed(vaddr + PAGE_SIZE)) == 0
    assert walk(state, FIRST_PROCESS, vaddr) is not None


@pytest.mark.parametrize("mode", [PagingMode.LEVEL_4, PagingMode.LEVEL_5])
def test_6_1_needs_no_fault_for_a_new_page_of_vmalloc(mode: PagingMode) -> None:
    layout = KernelLayout(FRAMES_512_MIB, mode)
    state, plan = kernel_machine(layout)
    init_pgd_entry(state, FIRST_PROCESS)
    vaddr = layout.region(RegionName.VMALLOC).end + 1 - PAGE_SIZE
    assert walk(state, FIRST_PROCESS, vaddr) is None
    assert sync_pgd_fault_entry(state, FIRST_PROCESS, signed(vaddr)) == 0
    add_to_vmalloc(state, layout, plan.swapper_pgd, vaddr)
    assert walk(state, FIRST_PROCESS, vaddr) is not None


@pytest.mark.parametrize(
    "address", [0, 0x7FFFFFFFF000, 0xFFFF880000000000, 0xFFFFFE8000000000, 0xFFFFFFFFA0000000]
)
def test_faults_outside_vmalloc_are_left_alone(address: int) -> None:
    state, plan = kernel_machine(DEFERRING[0])
    init_pgd_entry(state, FIRST_PROCESS)
    before = table(state, FIRST_PROCESS)
    state.pt_word[(plan.swapper_pgd << 9) + (address >> 39 & 511)] = table_word(A_TABLE)
    assert sync_pgd_fault_entry(state, FIRST_PROCESS, signed(address)) == 0
    assert table(state, FIRST_PROCESS) == before
