"""ksmd reaches perfect sharing on frozen recordings: computed from the files alone, with numpy."""

from pathlib import Path

import numpy as np
import pytest

from node.guest.host import HostMachine
from node.guest.image import ImageGuest
from tests.node.guest.drive import S, image_spec
from tests.node.guest.fleet import Fleet, host_spec

pytestmark = pytest.mark.slow

DATA = Path(__file__).resolve().parents[2] / "scenarios" / "data"
LAST = 5
SHARERS = 256
GUESTS = [("idle-a", 0), ("nginx-a", 0), ("nginx-a", 77)]  # image, variant
FILE, RESERVED, SLAB, PGTABLE, KERNEL_OTHER, ZERO_PAGE, NOPAGE = 7, 2, 3, 4, 9, 10, 0


def columns(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Read content numbers, classes, presence and hashes without the loader."""
    file = np.load(DATA / f"{name}.npz", allow_pickle=False)
    delta = file["ids_delta"].astype(np.int64)
    delta[0] = np.cumsum(delta[0])
    return (
        np.cumsum(delta, axis=0),
        file["flag_class"][file["flag_idx"]],
        file["host_state"][LAST] != 0,
        file["content_hash64"],
    )


def tokens(name: str, variant: int, presence: str) -> list[tuple[int, int]]:
    """Return what tells the contents of a guest's present pages apart: (variant or 0, hash)."""
    ids, classes, present, hashes = columns(name)
    if presence == "nonzero":
        present &= (ids != 0).any(axis=0)
    everyones = np.isin(classes, [FILE, RESERVED, SLAB, PGTABLE, KERNEL_OTHER, ZERO_PAGE, NOPAGE])
    shared = set(np.unique(ids[everyones]).tolist()) | {0}
    hash_of = hashes.tolist()
    return [(0 if number in shared else variant, hash_of[number]) for number in ids[LAST][present].tolist()]


@pytest.mark.parametrize("presence", ["thp", "nonzero"])
def test_converged_ksm_on_frozen_images_is_perfect_sharing(presence: str) -> None:
    counts: dict[tuple[int, int], int] = {}
    specs = []
    for index, (name, variant) in enumerate(GUESTS):
        for token in tokens(name, variant, presence):
            counts[token] = counts.get(token, 0) + 1
        spec = image_spec(DATA / f"{name}.npz", guest=index, machine=index, variant=variant)
        specs.append(
            spec | {"memory_bytes": 256 << 20, "replay": "frozen", "snapshot": LAST, "presence": presence}
        )
    shared = sum(-(-count // SHARERS) for count in counts.values() if count > 1)
    sharing = sum(count - -(-count // SHARERS) for count in counts.values() if count > 1)
    unshared = sum(count == 1 for count in counts.values())

    ksm = {"run": 1, "pages_to_scan": 20_000}
    fleet = Fleet(
        HostMachine(host_spec(specs, memory_mib=1024, ksm=ksm)),
        [ImageGuest(spec) for spec in specs],
        check=False,
    )
    while fleet.host.counters()["ksm.full_scans"] < 3:
        fleet.step(fleet.now_ns + S)
    counters = fleet.host.counters()
    assert (counters["ksm.pages_shared"], counters["ksm.pages_sharing"]) == (shared, sharing)
    assert (counters["ksm.pages_unshared"], counters["ksm.pages_volatile"]) == (unshared, 0)
