"""A small real fleet: same bytes whatever runs it and whatever dies, and the host holds what its guests hold.

Two recorded guests (small ones, written here), a full machine as a guest, a host that has less memory
than they use, with KSM and swap, and a plain machine beside it. Five simulated seconds.
"""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.calls import Advance, unpack
from cluster.coordinator import FleetResult, Progress
from cluster.errors import RunFailed
from cluster.executor import InlineExecutor
from cluster.machine_server import NODE_BUILDER
from cluster.plan import Plan
from cluster.ray_config import RayConfig
from cluster.ray_executor import RayExecutor
from node.guest.host import HostMachine
from node.guest.invariants import host_side
from node.phys.page import PageFlag
from tests.cluster import programs
from tests.cluster.fleets import digest, plan_of, run_plan, write_scenario
from tests.cluster.ray_fleets import KillingExecutor, run_on_ray, running_ray
from tests.models.recorded_image import columns_of, write_image

pytestmark = pytest.mark.slow  # a minute in all

HALF_WAY_NS = 2_700_000_000  # between two checkpoints
NR_PAGES = 4096  # of a recorded guest
GUESTS_SERVER, HOST_SERVER = 0, 1  # with all guests in one actor


def small_image(folder: Path, name: str, seed: int) -> None:
    """Record a guest whose pages are shared with others, its own, zero, or always changing."""
    rng = np.random.default_rng(seed)
    ids = np.tile(np.arange(1, NR_PAGES + 1) + seed * NR_PAGES, (4, 1))
    ids[:, ::3] = np.arange(1, NR_PAGES + 1)[::3]
    ids[:, ::7] = 0
    busy = rng.permutation(NR_PAGES)[: NR_PAGES // 8]
    for snapshot in range(1, 4):
        ids[snapshot, busy] += (4 + snapshot) * NR_PAGES
    write_image(folder / f"{name}.npz", columns_of(ids, times_s=(0.5, 1.5, 3, 4.5)))


def document(packed: int) -> dict[str, Any]:
    """Return the scenario; its guests use more than the 32 MiB that the host has besides its kernel."""
    zipf = {
        "workload": "zipf",
        "memory": "12MiB",
        "operations": "200k",
        "think_ns": 20_000,
        "mergeable": True,
    }
    return {
        "name": "small",
        "duration": "5s",
        "epoch": "100ms",
        "checkpoint_every": "1s",
        "machines_per_actor": packed,
        "hosts": [
            {
                "name": "h",
                "memory": "80MiB",
                "ksm": {"run": 1, "pages_to_scan": 400},
                "swap": {"size": "128MiB", "device": "ssd"},
                "guests": [
                    {"image": "first"},
                    {"image": "second"},
                    {"machine": {"memory": "64MiB", "processes": [zipf]}},
                ],
            }
        ],
        "machines": [{"name": "m", "memory": "64MiB", "processes": [zipf | {"operations": "50k"}]}],
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the images, where the scenario is written."""
    folder = tmp_path_factory.mktemp("fleet")
    small_image(folder, "first", 0)
    small_image(folder, "second", 1)
    return folder


def run_inline(plan: Plan, folder: Path, executor: InlineExecutor | None = None) -> FleetResult:
    return run_plan(plan, folder, executor, builder=NODE_BUILDER)


@pytest.fixture(scope="module")
def plan(folder: Path) -> Plan:
    return plan_of(folder, document(packed=1))


@pytest.fixture(scope="module")
def unbroken(folder: Path, plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, FleetResult]:
    """Return the run in process, with every border checked, and its digest."""
    checked = plan_of(folder, document(packed=1) | {"check_invariants": True})
    result = run_inline(checked, tmp_path_factory.mktemp("inline"))
    return digest(plan, result), result


@pytest.fixture(scope="module")
def config() -> Iterator[RayConfig]:
    with running_ray() as config:
        yield config


def test_the_scenario_merges_swaps_and_computes(unbroken: tuple[str, FleetResult]) -> None:
    host, *guests, machine = unbroken[1].counters
    assert host["ksm.pages_sharing"] > NR_PAGES // 4
    assert host["cow_ksm"] > 0
    assert host["pswpout"] > 1000
    assert host["pswpin"] > 100
    assert host["oom_kill"] == 0
    assert guests[0]["changes"] > NR_PAGES // 8
    assert guests[2]["operations"] > 100_000
    assert machine["operations"] == 50_000


def test_two_runs_in_a_row_are_equal_and_checking_changes_nothing(
    plan: Plan, unbroken: tuple[str, FleetResult], tmp_path: Path
) -> None:
    result = run_inline(plan, tmp_path)
    assert digest(plan, result) == unbroken[0]
    assert result.samples == unbroken[1].samples
    assert result.events == unbroken[1].events


@pytest.mark.parametrize("packed", [1, 4])
def test_ray_gives_what_the_run_in_process_gave(
    config: RayConfig, folder: Path, unbroken: tuple[str, FleetResult], tmp_path: Path, packed: int
) -> None:
    plan = plan_of(folder, document(packed))
    assert run_on_ray(plan, tmp_path, RayExecutor(config), builder=NODE_BUILDER) == unbroken[0]


@pytest.mark.parametrize("server", [GUESTS_SERVER, HOST_SERVER], ids=["guests", "host"])
def test_a_killed_actor_changes_nothing(
    config: RayConfig, folder: Path, unbroken: tuple[str, FleetResult], tmp_path: Path, server: int
) -> None:
    executor = KillingExecutor(config)

    def kill_half_way(progress: Progress) -> None:
        if progress.now_ns >= HALF_WAY_NS:
            executor.kill(server)

    plan = plan_of(folder, document(packed=4))
    assert run_on_ray(plan, tmp_path, executor, kill_half_way, NODE_BUILDER) == unbroken[0]
    assert len(executor.killed) == 1


def test_a_worker_killed_with_a_call_in_flight_changes_nothing(
    config: RayConfig, folder: Path, unbroken: tuple[str, FleetResult], tmp_path: Path
) -> None:
    executor = KillingExecutor(config)
    executor.kill_in_flight = (HOST_SERVER, 27)
    executor.pause_s = 0.0005  # the phase takes some milliseconds
    plan = plan_of(folder, document(packed=4))
    assert run_on_ray(plan, tmp_path, executor, builder=NODE_BUILDER) == unbroken[0]
    assert len(executor.killed) == 1


@pytest.mark.parametrize("executor", ["inline", "ray"])
def test_a_run_whose_driver_was_killed_goes_on_with_resume(
    folder: Path, unbroken: tuple[str, FleetResult], executor: str
) -> None:
    scenario = write_scenario(folder, document(packed=4))
    out = folder / executor
    arguments = ("run", str(scenario), "--executor", executor, "--out", str(out))
    process = programs.start(*arguments, cwd=folder, program=programs.REAL)
    programs.wait_for_checkpoint(out, process, epoch=10)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=programs.PATIENCE_SECONDS)
    assert programs.manifest(out)["status"] == "interrupted"
    assert not (out / "summary.json").exists()
    done = programs.run(*arguments, "--resume", "--json", cwd=folder, program=programs.REAL)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["digest"] == unbroken[0]
    assert programs.manifest(out)["resumed"] == 1


class TamperingExecutor(InlineExecutor):
    """Alters, behind the back of everybody, what the host holds of one page of guest 0."""

    def __init__(self, at_position: int) -> None:
        super().__init__()
        self.at_position = at_position
        self.gfn = -1

    def wait(self) -> tuple[int, bytes | None]:
        server, data = self._pending[0]
        order = unpack(data)
        outcome = super().wait()
        host = self._servers[server].members.get("h")
        if (
            isinstance(order, Advance)
            and order.position == self.at_position
            and isinstance(host, HostMachine)
        ):
            pages = np.asarray(host.state.page)
            pfn = host_side(host.state, 0).pfn
            own = (pfn > 0) & (pages["mapcount"][pfn] == 1) & ((pages["page_flags"][pfn] & PageFlag.KSM) == 0)
            self.gfn = int(np.flatnonzero(own)[0])
            pages["content"][pfn[self.gfn]] ^= 1 << 40
        return outcome


def test_wrong_content_on_the_host_is_noticed_at_the_next_border(folder: Path, tmp_path: Path) -> None:
    checked = plan_of(folder, document(packed=4) | {"check_invariants": True})
    tampering = TamperingExecutor(at_position=12)
    with pytest.raises(
        RunFailed, match=r"h: guest 0, gfn \d+: content is -?\d+, not -?\d+ \(1 such\)"
    ) as caught:
        run_inline(checked, tmp_path, tampering)
    assert f"gfn {tampering.gfn}:" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_host_too_small_for_its_kernel_is_refused_before_anything_runs(folder: Path) -> None:
    scenario = write_scenario(folder, document(packed=4))
    done = programs.run(
        *("run", str(scenario), "--executor", "inline", "--out", "tiny", "--set", "hosts.0.memory=32MiB"),
        cwd=folder,
        program=programs.REAL,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("pagefleet: h: memory: 32MiB is less than the ")
    assert done.stderr.count("\n") == 1
    assert not (folder / "tiny").exists()
