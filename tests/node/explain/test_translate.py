"""An access on a whole machine, explained: where it is made from, what is cached, what Linux does about a fault."""

from typing import Any

import numpy as np
import pytest

from node.counters import Current, HwEvent, Knob
from node.explain.cached import look_into_tlbs, look_into_walk_caches
from node.explain.tables import Place
from node.hw.paging import AccessKind, PagingMode
from node.kmap.memory_map import START_KERNEL_MAP, RegionName, find_region
from node.machine import Machine
from shared.constants import MIB, PAGE_SHIFT, PAGE_SIZE
from tests.models.page_tables import leaf_entry

pytestmark = pytest.mark.three_ways

MEMORY = 96 * MIB
NR_PAGES = 16
HARDWARE_4X4 = 4 * 4 + 4 + 4  # references of a nested walk without caches
DIRECT_MAP = 0xFFFF_8880_0000_0000
LEAST = {"memory_bytes": MEMORY, "kind": "machine", "vm": {"min_free_kbytes": 128}}
WORK = {
    "workload": "sequential",
    "memory_bytes": NR_PAGES * PAGE_SIZE,
    "write_percent": 100,
    "think_ns": 10_000,
}


def machine_of(*works: dict[str, Any], ran_ms: int = 0, **changes: Any) -> Machine:
    """Return a machine with these processes, run for a while; ``hw`` may be among the changes."""
    machine = Machine({**LEAST, "processes": list(works or (WORK,)), **changes})
    if ran_ms:
        machine.run_until(ran_ms * 1_000_000)
    return machine


def first_access(machine: Machine, **question: Any) -> dict[str, Any]:
    """Explain, and return what is said of the only access."""
    [access] = machine.explain_translation(question)["accesses"]
    return dict(access)


def ends(said: dict[str, Any]) -> list[str]:
    return [access["outcome"].get("served_by", access["outcome"]["result"]) for access in said["accesses"]]


# --- the way through ------------------------------------------------------------------------------------


def test_the_first_access_faults_linux_serves_it_and_the_tlb_then_has_it() -> None:
    machine = machine_of()
    said = machine.explain_translation({"base": "first", "access": "write", "repeat": 2})
    assert ends(said) == ["fault", "walk", "first-level TLB"]
    fault, walked, cached = said["accesses"]
    assert fault["outcome"]["linux"]["action"] == "serve_fault"
    assert fault["outcome"]["linux"]["outcome"] == "done"
    assert fault["walk"]["references"] == 1
    assert [level["read"] for level in walked["walk"]["levels"]] == [True] * 4
    assert [tlb["held"] for tlb in walked["tlbs"]] == [None] * 6
    held = cached["tlbs"][0]["held"]
    assert held["frame"] == cached["outcome"]["frame"] == walked["outcome"]["frame"]
    assert held["pcid"] == said["registers"]["pcid"]
    assert cached["counters"] == {"tlb_l1_hit": 1}
    assert cached["cost"]["cycles"] == 1
    vaddr = int(said["address"]["linear"], 16)
    pte = leaf_entry(machine.state, int(machine.state.mm[1].pgd_pfn), vaddr)
    assert int(walked["walk"]["levels"][-1]["value"], 16) == pte % (1 << 64)


def test_a_first_write_after_reads_sets_d_by_a_walk() -> None:
    machine = machine_of(WORK | {"write_percent": 0}, ran_ms=1)
    said = machine.explain_translation({"base": "first", "access": "write", "repeat": 1})
    assert ends(said) == ["fault", "walk"]  # the page of zeroes: copy on write
    assert "read-only (R/W is 0 in PTE)" in said["accesses"][0]["outcome"]["because"]
    said = machine.explain_translation({"base": "first", "offset": PAGE_SIZE})
    assert said["accesses"][0]["outcome"]["frame_is"] == "the shared page of zeroes"


def test_what_the_access_sets_in_the_tables_is_said() -> None:
    machine = machine_of(ran_ms=1)
    state = machine.state
    said = machine.explain_translation({"base": "first"})
    last = said["accesses"][0]["walk"]["levels"][-1]
    position = int(last["entry_address"], 16) // 8
    state.pt_word[position] &= ~0x60  # A and D
    machine.state.tlb["key"][:] = 0
    access = first_access(machine, base="first", access="write")
    assert access["walk"]["levels"][-1]["set_by_access"] == ["A", "D"]
    assert [level["set_by_access"] for level in access["walk"]["levels"][:-1]] == [[], [], []]


def test_other_pcids_of_the_page_are_named() -> None:
    machine = machine_of(WORK, WORK, ran_ms=8)
    access = first_access(machine, base="first", process=1)
    small = access["tlbs"][0]
    assert small["held"]["pcid"] != small["other_pcids"][0]
    assert len(small["other_pcids"]) == 1


def test_large_pages_of_the_direct_map() -> None:
    machine = machine_of(hw={"processor": "icelake"})
    said = machine.explain_translation({"base": DIRECT_MAP + 33 * MIB + 5, "repeat": 1})
    first, second = said["accesses"]
    assert first["outcome"]["page_size"] == "2MiB"
    assert int(first["outcome"]["physical_address"], 16) == 33 * MIB + 5
    assert (first["outcome"]["global"], second["tlbs"][1]["held"]["global"]) == (True, True)
    assert said["question"]["mode"] == "kernel"


def test_looking_uses_nothing_up() -> None:
    machine = machine_of(ran_ms=1)
    machine.explain_translation({"base": "first"})
    state = machine.state
    digest = machine.digest()
    vaddr = int(state.vma[int(state.mm[1].first_vma)].start)
    place = Place(state, 0, vaddr)
    assert any(tlb["held"] for tlb in look_into_tlbs(place, machine.spec, AccessKind.READ))
    assert all(cache["held"] for cache in look_into_walk_caches(place, machine.spec))
    assert machine.digest() == digest


# --- KPTI -----------------------------------------------------------------------------------------------


def test_user_mode_finds_nothing_of_the_kernel_under_kpti() -> None:
    machine = machine_of()
    for address in (DIRECT_MAP, 0xFFFF_EA00_0000_0000):
        access = first_access(machine, base=address, mode="user")
        [top] = access["walk"]["levels"]
        assert (top["level"], top["leads_to"]) == ("PGD", "nothing")
        assert top["other_copy"]["copy"] == "kernel"
        assert top["other_copy"]["present"]
        assert access["outcome"]["error_code"] == "0x4"
        assert access["outcome"]["linux"]["action"] == "signal"
    # What user mode must see of the kernel is there, but not to be touched.
    entry_text = START_KERNEL_MAP + ((16 + 14 - 2) * MIB)
    access = first_access(machine, base=entry_text, mode="user")
    assert access["outcome"]["error_code"] == "0x5"


def test_without_kpti_the_kernel_is_mapped_and_forbidden() -> None:
    machine = machine_of(hw={"pti": False})
    access = first_access(machine, base=DIRECT_MAP, mode="user")
    assert access["outcome"]["because"].startswith("read of a page that belongs to the kernel (U/S is 0 in ")
    assert "other_copy" not in access["walk"]["levels"][0]


def test_the_kernels_copy_forbids_to_execute_user_space() -> None:
    machine = machine_of(ran_ms=1)
    said = machine.explain_translation({"base": "first", "mode": "kernel", "ac": True})
    assert said["registers"]["pti_copy"] == "kernel"
    [access] = said["accesses"]
    assert access["walk"]["levels"][0]["bits"]["XD"] == 1
    assert access["outcome"]["result"] == "page"


# --- what Linux does ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["read", "write", "execute"])
@pytest.mark.parametrize("offset", [0, NR_PAGES // 2 * PAGE_SIZE, NR_PAGES * PAGE_SIZE])
@pytest.mark.parametrize("write_percent", [0, 100])
@pytest.mark.parametrize("mode", ["user", "kernel"])
def test_what_linux_is_said_to_do_is_what_it_does(
    kind: str, offset: int, write_percent: int, mode: str
) -> None:
    works = [{**WORK, "write_percent": write_percent, "operations": NR_PAGES // 2}]
    machine = machine_of(*works, ran_ms=1)
    question = {"base": "first", "offset": offset, "access": kind, "mode": mode, "ac": True}
    said = machine.explain_translation({**question, "repeat": 1})
    outcome = said["accesses"][0]["outcome"]
    inside = offset < NR_PAGES * PAGE_SIZE
    if outcome["result"] == "page":
        assert inside
        return
    served = outcome["linux"]["action"] == "serve_fault"
    assert served == (inside and kind != "execute")
    assert (len(said["accesses"]) == 2) == served
    assert (outcome["linux"].get("outcome") == "done") == served
    if served:
        assert said["accesses"][1]["outcome"]["result"] == "page"
    # An access that is not served would end the process: the handler says so too.
    elif mode == "user":
        assert "SIGSEGV" in outcome["linux"]["says"]


def test_smap_and_smep_stop_the_kernel() -> None:
    machine = machine_of(ran_ms=1, hw={"pti": False})
    access = first_access(machine, base="first", mode="kernel")
    assert "CR4.SMAP" in access["outcome"]["because"]
    assert access["outcome"]["linux"]["action"] == "oops"
    # Make the page executable: what is left is SMEP.
    last = access["walk"]["levels"][-1]
    machine.state.pt_word[int(last["entry_address"], 16) // 8] &= (1 << 63) - 1
    machine.state.tlb["key"][:] = 0
    access = first_access(machine, base="first", mode="kernel", access="execute")
    assert "CR4.SMEP" in access["outcome"]["because"]


def test_a_late_entry_of_vmalloc_reaches_a_process_by_a_fault_in_the_lecture() -> None:
    machine = machine_of(era="lecture")
    state = machine.state
    vmalloc = find_region(RegionName.VMALLOC, "lecture", PagingMode.LEVEL_4).start
    direct = find_region(RegionName.DIRECT_MAP, "lecture", PagingMode.LEVEL_4).start
    top = int(state.knob[Knob.SWAPPER_PGD]) << 9
    state.pt_word[top + (vmalloc >> 39 & 511)] = state.pt_word[top + (direct >> 39 & 511)]
    said = machine.explain_translation({"base": vmalloc + 33 * MIB, "repeat": 1})
    fault, page = said["accesses"]
    assert fault["outcome"]["linux"] == {
        "action": "sync_kernel_entry",
        "says": "copies the top-level entry that its own table got since (vmalloc_fault), and tries again",
        "outcome": "done",
    }
    assert int(page["outcome"]["physical_address"], 16) == 33 * MIB


def test_an_address_that_is_not_canonical_is_explained() -> None:
    said = machine_of().explain_translation({"base": 1 << 47})
    assert not said["address"]["canonical"]
    [access] = said["accesses"]
    assert (access["outcome"]["name"], access["walk"]["levels"], access["tlbs"]) == ("#GP", [], [])
    assert access["outcome"]["linux"]["action"] == "signal"


# --- other machines -------------------------------------------------------------------------------------


def test_a_nested_walk_counts_up_to_24_references() -> None:
    machine = machine_of(kind="guest", hw={"walk_caches": {"ept_pd": {"entries": 0}}})
    said = machine.explain_translation({"base": "first", "repeat": 1})
    machine.state.tlb["key"][:] = 0
    access = first_access(machine, base="first")
    walk = access["walk"]
    assert said["machine"]["guest"]
    assert (walk["references"], walk["ept_references"]) == (4, 20)
    assert walk["references"] + walk["ept_references"] == HARDWARE_4X4


def test_32_bit_paging_has_two_levels_of_short_entries() -> None:
    machine = machine_of(ran_ms=1, hw={"paging": "32bit"})
    said = machine.explain_translation({"base": "first"})
    assert [part["level"] for part in said["address"]["parts"]] == ["PGD", "PTE"]
    levels = said["accesses"][0]["walk"]["levels"]
    assert [len(level["value"]) for level in levels] == [10, 10]
    address = (int(levels[0]["table_frame"], 16) << PAGE_SHIFT) + 4 * levels[0]["index"]
    assert int(levels[0]["entry_address"], 16) == address
    large = first_access(machine, base=0xC000_0000 + 33 * MIB + 7)
    assert large["outcome"]["page_size"] == "4MiB"
    assert int(large["outcome"]["physical_address"], 16) == 33 * MIB + 7


def test_without_paging_an_address_is_physical() -> None:
    machine = machine_of(hw={"paging": "none"})
    said = machine.explain_translation({"base": "first"})
    [access] = said["accesses"]
    assert int(access["outcome"]["physical_address"], 16) == int(said["address"]["linear"], 16)
    assert access["outcome"]["served_by"] == "nothing: paging is off"
    behind = first_access(machine, base=MEMORY)
    assert behind["outcome"]["because"] == "read of an address behind the memory, from user mode"


def test_software_that_refills_is_a_trap() -> None:
    machine = machine_of(ran_ms=1, hw={"processor": "r3000"})
    machine.state.tlb["key"][:] = 0
    access = first_access(machine, base="first")
    assert access["counters"] == {"tlb_walk": 1, "walk_references": 4, "refill_trap": 1}
    assert access["walk_caches"] == []


def test_the_kernels_own_address_space() -> None:
    said = machine_of().explain_translation({"base": DIRECT_MAP + 33 * MIB, "process": "kernel"})
    assert said["question"]["process"] == "kernel"
    assert said["accesses"][0]["outcome"]["result"] == "page"
    nobody = Machine(LEAST).explain_translation({"base": DIRECT_MAP})
    assert nobody["question"]["process"] == "kernel"


def test_a_process_stays_on_its_cpu_and_the_clock_is_its() -> None:
    machine = machine_of(WORK, WORK | {"cpu": 1}, cpus=2, ran_ms=1)
    question = machine.explain_translation({"base": "first", "process": 1})["question"]
    assert (question["cpu"], question["process"]) == (1, 1)
    assert question["time_ns"] >= 1_000_000
    assert machine.explain_translation({"base": "first", "process": 1, "cpu": 0})["question"]["cpu"] == 0


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ({"base": "nowhere"}, "address: 'nowhere' is not a number, nor one of first, user-space, "),
        (
            {"base": "hole-at-the-top", "offset": 1 << 40},
            "address: 0x1000000ffffe00000 is outside the 64 bits",
        ),
        ({"base": 0, "process": 1}, "process: 1 is not one of this machine's (0 to 0)"),
        ({"base": 0, "cpu": 1}, "cpu: 1 is not one of this machine's (0 to 0)"),
        ({"base": "first", "process": "kernel"}, "address: first: there is no memory of a process"),
        ({"base": 0, "process": "kernel", "mode": "user"}, "mode: nothing runs in user mode on the kernel's"),
    ],
)
def test_questions_about_what_is_not_there_are_one_line(question: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 # the message is compared below
        machine_of().explain_translation(question)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_counters_of_the_machine_are_those_shown() -> None:
    machine = machine_of(ran_ms=1)
    before = np.array(machine.state.hw_event)
    said = machine.explain_translation({"base": DIRECT_MAP, "process": 0})
    grown = np.array(machine.state.hw_event) - before
    shown = said["accesses"][0]["counters"]
    # Going there (a system call's way in) counts too, so what is shown is part of it.
    assert shown
    for name, value in shown.items():
        assert grown[HwEvent[name.upper()]] >= value
    assert machine.state.current[Current.CPU] == 0
