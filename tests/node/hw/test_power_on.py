"""What a machine's translation hardware looks like when the kernel has booted."""

from typing import Any

import pytest

from node.counters import Knob
from node.hw.hardware import check_hardware, resolve_hw
from node.hw.memory_type import LINUX_PAT
from node.hw.paging import PAGING_MODES, PagingMode
from node.hw.power_on import nr_tlb_entries, nr_tlb_sets, register_values, table_lengths
from node.hw.processors import PROCESSORS
from node.hw.pte import NX
from node.hw.registers import Cr0, Cr4, Efer
from node.hw.tlb import KEY_VALID, Refill, Replacement, TlbArray
from shared.constants import NIL
from tests.node.hw.small_machine import NO_ARRAY, SmallMachine

pytestmark = pytest.mark.three_ways

ROOT = 0x1234
PAGINGS = ("none", "32bit", "4level", "5level")
BOOTED = Cr0.PE | Cr0.WP | Cr0.PG
LONG = Efer.LME | Efer.LMA


def values(**keys: Any) -> dict[str, int]:
    return register_values(resolve_hw(keys)[0], ROOT)


@pytest.mark.parametrize(
    ("keys", "cr0", "cr4", "efer"),
    [
        ({"paging": "none"}, Cr0.PE, None, None),
        ({"paging": "32bit", "processor": "textbook"}, BOOTED, Cr4.PSE | Cr4.PGE, 0),
        (
            {"processor": "skylake"},
            BOOTED,
            Cr4.PAE | Cr4.PGE | Cr4.PCIDE | Cr4.SMEP | Cr4.SMAP,
            LONG | Efer.NXE,
        ),
        (
            {"processor": "icelake", "paging": "5level"},
            BOOTED,
            Cr4.PAE | Cr4.PGE | Cr4.PCIDE | Cr4.SMEP | Cr4.SMAP | Cr4.PKE | Cr4.LA57,
            LONG | Efer.NXE,
        ),
        ({"processor": "zen2"}, BOOTED, Cr4.PAE | Cr4.PGE | Cr4.SMEP | Cr4.SMAP, LONG | Efer.NXE),
        ({"processor": "r3000"}, BOOTED, Cr4.PAE | Cr4.PGE | Cr4.PCIDE, LONG),
    ],
)
def test_registers_are_as_a_booted_kernel_leaves_them(
    keys: dict[str, Any], cr0: int, cr4: int | None, efer: int | None
) -> None:
    found = values(**keys)
    assert found["cr0"] == cr0
    assert found["pat"] == LINUX_PAT
    if cr4 is not None:
        assert (found["cr4"], found["efer"], found["cr3"]) == (cr4, efer, ROOT << 12)


def test_without_global_pages_neither_pge_nor_pcids_are_on() -> None:
    found = values(processor="skylake", pcid=False, global_pages=False)
    assert found["cr4"] & (Cr4.PGE | Cr4.PCIDE) == 0


@pytest.mark.parametrize(
    ("keys", "pkru"),
    [
        ({"processor": "icelake"}, 0x5555_5554),
        ({"processor": "skylake"}, 0),
        ({"processor": "icelake", "paging": "32bit"}, 0),
    ],
)
def test_where_there_are_protection_keys_only_key_0_is_open(keys: dict[str, Any], pkru: int) -> None:
    assert values(**keys)["pkru"] == pkru
    assert all(pkru >> 2 * key & 1 for key in range(1, 16)) == bool(pkru)


def test_every_cpu_starts_in_kernel_mode_on_the_master_table() -> None:
    machine = SmallMachine(nr_cpus=3)
    for cpu in range(3):
        record = machine.state.cpu[cpu]
        assert record.cr3 == machine.state.knob[Knob.SWAPPER_PGD] << 12
        assert (record.cpl, record.tlb_tag, record.mm, record.lazy) == (0, KEY_VALID, 0, 0)


@pytest.mark.parametrize("paging", PAGINGS)
@pytest.mark.parametrize("processor", PROCESSORS)
def test_every_preset_is_laid_out_without_gaps_or_overlaps(processor: str, paging: str) -> None:
    hw, tlb = resolve_hw({"processor": processor, "paging": paging})
    check_hardware(hw, tlb)
    machine = SmallMachine(nr_cpus=2, hw={"processor": processor, "paging": paging, "tlb": {}, "pti": None})
    nr_entries = int(machine.state.knob[Knob.TLB_ENTRIES])
    places = {}
    sets = {}
    for role in range(TlbArray.NR):
        array = machine.state.tlb_array[role]
        if array.nr_ways:
            places[array.first] = array.nr_sets * array.nr_ways
            sets[array.first_set] = array.nr_sets
    for starts, total in ((places, nr_entries), (sets, int(machine.state.knob[Knob.TLB_SETS]))):
        ends = [start + length for start, length in sorted(starts.items())]
        assert [0, *ends] == [*sorted(starts), total]
    assert len(machine.state.tlb) == 2 * nr_entries


def test_lengths_are_those_of_all_cpus_with_their_walk_caches() -> None:
    hw, tlb = resolve_hw({"processor": "skylake"})
    # 4K, 2M, 1G of data; 4K, 2M of code; second level twice; PD, PDPT, PML4, EPT's PD.
    assert nr_tlb_entries(tlb, hw.walk_caches) == 64 + 32 + 4 + 128 + 8 + 1536 + 16 + 32 + 4 + 4 + 32
    assert nr_tlb_sets(tlb, hw.walk_caches) == 16 + 8 + 1 + 16 + 1 + 128 + 4 + 8 + 1 + 1 + 8
    lengths = table_lengths(tlb, hw.walk_caches, 3)
    assert (lengths["tlb"], lengths["tlb_tree"]) == (3 * 1860, 3 * 192)
    assert (lengths["tlb_array"], lengths["paging_level"]) == (TlbArray.NR, 5)


def test_roles_that_share_an_array_name_one_place() -> None:
    machine = SmallMachine(hw={"processor": "zen4", "tlb": {}})
    arrays = machine.state.tlb_array

    def place(role: TlbArray) -> tuple[int, int, int]:
        return arrays[role].first, arrays[role].nr_sets, arrays[role].nr_ways

    assert place(TlbArray.D1_4K) == place(TlbArray.D1_2M) == place(TlbArray.D1_1G) == (0, 1, 72)
    assert place(TlbArray.L2_4K) == place(TlbArray.L2_2M) != place(TlbArray.L2_1G)
    assert place(TlbArray.D1_4K)[0] != place(TlbArray.I1_4K)[0]


def test_a_role_without_an_array_has_no_ways() -> None:
    machine = SmallMachine(hw={"processor": "zen2", "tlb": {}})
    assert machine.state.tlb_array[TlbArray.L2_1G].nr_ways == 0
    assert machine.state.tlb_array[TlbArray.WALK_PML5].nr_ways == 0


def test_an_array_says_how_its_sets_are_found_and_its_entries_replaced() -> None:
    no = {"2M": NO_ARRAY, "1G": NO_ARRAY}
    tlb = {
        "data": no | {"4K": {"entries": 12, "ways": 4, "replacement": "random", "wired": 1}},
        "instruction": no | {"4K": {"entries": 16, "ways": 4, "replacement": "plru"}},
        "second": {"all": NO_ARRAY},
    }
    arrays = SmallMachine(hw={"tlb": tlb}).state.tlb_array
    data, code = arrays[TlbArray.D1_4K], arrays[TlbArray.I1_4K]
    assert (data.nr_sets, data.set_mask, data.replacement, data.wired) == (3, NIL, Replacement.RANDOM, 1)
    assert (code.nr_sets, code.set_mask, code.replacement, code.wired) == (4, 3, Replacement.PLRU, 0)


@pytest.mark.parametrize(
    ("paging", "shifts"), [("32bit", [12, 22]), ("4level", [12, 21, 30]), ("5level", [12, 21, 30])]
)
def test_a_role_knows_the_size_of_its_pages(paging: str, shifts: list[int]) -> None:
    arrays = SmallMachine(hw={"paging": paging}).state.tlb_array
    for side in (TlbArray.D1_4K, TlbArray.I1_4K, TlbArray.L2_4K):
        assert [arrays[side + size].shift for size in range(len(shifts))] == shifts


@pytest.mark.parametrize("paging", PAGINGS)
def test_the_knobs_say_in_short_what_the_machine_can_do(paging: str) -> None:
    machine = SmallMachine(hw={"paging": paging, "pti": None})
    mode = PAGING_MODES[PagingMode(machine.state.knob[Knob.PAGING_MODE])]
    assert mode.name == paging
    is_64 = paging in ("4level", "5level")
    expected = {
        Knob.NR_LEVELS: len(mode.levels),
        Knob.TABLE_SHIFT: mode.table_shift,
        Knob.LINEAR_BITS: mode.linear_bits,
        Knob.PCID: is_64,
        Knob.PTI: is_64,
        Knob.NX_BIT: NX if is_64 else 0,
        Knob.EPT_LEVELS: 0,
        Knob.TLB_REFILL: Refill.HARDWARE,
    }
    assert {knob: machine.state.knob[knob] for knob in expected} == expected


def test_guests_and_software_refill_are_told() -> None:
    assert SmallMachine(guest=True).state.knob[Knob.EPT_LEVELS] == 4
    mips = SmallMachine(hw={"processor": "r3000", "tlb": {}, "walk_caches": {}})
    assert mips.state.knob[Knob.TLB_REFILL] == Refill.SOFTWARE
    assert mips.state.knob[Knob.NX_BIT] == 0
