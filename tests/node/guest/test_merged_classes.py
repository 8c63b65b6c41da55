"""Merged pages counted by what the guest used them for."""

from pathlib import Path

import numpy as np
import pytest

from node.guest.host import HostMachine
from node.guest.image import ImageGuest
from shared.images import PageClass
from tests.models.recorded_image import columns_of, write_image
from tests.node.guest.drive import MS, S, image_spec
from tests.node.guest.fleet import Fleet, host_spec

pytestmark = pytest.mark.three_ways

NR_PAGES = 60


def test_merged_pages_are_counted_by_class_and_add_up(tmp_path: Path) -> None:
    # Two guests hold the same pages: a third each of file, slab and anonymous memory.
    classes = np.repeat([PageClass.FILE, PageClass.SLAB, PageClass.ANON], NR_PAGES // 3)
    ids = np.tile(np.arange(1, NR_PAGES + 1), (2, 1))
    path = write_image(tmp_path / "twin.npz", columns_of(ids, classes=classes, times_s=(0.2, 9)))
    keys = {"memory_bytes": NR_PAGES * 4096, "replay": "frozen"}
    specs = [image_spec(path, guest=index, machine=index, **keys) for index in range(2)]
    ksm = {"run": 1, "pages_to_scan": 200, "sleep_millisecs": 20}
    fleet = Fleet(HostMachine(host_spec(specs, ksm=ksm)), [ImageGuest(spec) for spec in specs])
    fleet.run(S, 100 * MS)
    counters = fleet.host.counters()
    merged = {name: value for name, value in counters.items() if name.startswith("merged_class.") and value}
    assert merged == {
        "merged_class.file": 2 * NR_PAGES // 3,
        "merged_class.slab": 2 * NR_PAGES // 3,
        "merged_class.anon": 2 * NR_PAGES // 3,
    }
    assert sum(merged.values()) == counters["guest.0.ksm_pages"] + counters["guest.1.ksm_pages"]
