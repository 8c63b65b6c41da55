"""The same bytes on real Ray actors, whichever of them is killed. One Ray serves the whole module."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.coordinator import Progress
from cluster.plan import Plan
from cluster.ray_config import RayConfig
from cluster.ray_executor import RayExecutor
from tests.cluster import programs
from tests.cluster.fleets import digest, document, plan_of, run_plan, write_scenario
from tests.cluster.ray_fleets import KillingExecutor, run_on_ray, running_ray, servers_of

HALF_WAY_NS = 2 * 10**9
CONTENT = document(packed=2) | {"machines": []}  # servers: [g0 g1] [g2] [h]
GUESTS_SERVER, HOST_SERVER = 0, 2


@pytest.fixture(scope="module")
def config() -> Iterator[RayConfig]:
    with running_ray() as config:
        yield config


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return plan_of(tmp_path_factory.mktemp("plan"), CONTENT)


@pytest.fixture(scope="module")
def unbroken(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the digest of the run in process."""
    return digest(plan, run_plan(plan, tmp_path_factory.mktemp("inline")))


@pytest.mark.parametrize("packed", [1, 4])
def test_ray_and_inline_agree_however_members_are_packed(
    config: RayConfig, unbroken: str, tmp_path: Path, packed: int
) -> None:
    plan = plan_of(tmp_path, CONTENT | {"machines_per_actor": packed})
    assert run_on_ray(plan, tmp_path / "run", RayExecutor(config)) == unbroken


@pytest.mark.parametrize("server", [GUESTS_SERVER, HOST_SERVER], ids=["guests", "host"])
def test_a_killed_actor_changes_nothing(
    config: RayConfig, plan: Plan, unbroken: str, tmp_path: Path, server: int
) -> None:
    executor = KillingExecutor(config)

    def kill_half_way(progress: Progress) -> None:
        if progress.now_ns >= HALF_WAY_NS + 300_000_000:  # not at a checkpoint: there is something to replay
            executor.kill(server)

    assert run_on_ray(plan, tmp_path, executor, kill_half_way) == unbroken
    assert len(executor.killed) == 1


def test_a_worker_killed_with_a_call_in_flight_changes_nothing(config: RayConfig, tmp_path: Path) -> None:
    slow = plan_of(tmp_path, document(packed=2, sleep_us=40_000) | {"machines": [], "duration": "1s"})
    expected = digest(slow, run_plan(slow, tmp_path / "inline"))
    executor = KillingExecutor(config)
    executor.kill_in_flight = (GUESTS_SERVER, 5)
    assert run_on_ray(slow, tmp_path / "ray", executor) == expected
    assert len(executor.killed) == 1


@pytest.mark.slow
def test_the_command_starts_its_own_ray_and_says_only_that_an_actor_was_lost(
    tmp_path: Path, unbroken: str
) -> None:
    content = CONTENT | {"duration": "4s"}
    scenario = write_scenario(tmp_path, content)
    process = programs.start("run", str(scenario), "--out", "result", "--json", cwd=tmp_path)
    programs.wait_for_checkpoint(tmp_path / "result", process, epoch=10)
    os.kill(servers_of(process.pid)[0], signal.SIGKILL)
    out, errors = process.communicate(timeout=programs.PATIENCE_SECONDS)
    assert process.returncode == 0
    assert json.loads(out)["digest"] == unbroken
    assert errors.startswith("pagefleet: h")
    assert "restoring from the snapshot" in errors
    assert errors.count("\n") == 1
    assert programs.manifest(tmp_path / "result")["restorations"] == 1
    assert servers_of(process.pid) == []


def test_the_command_joins_a_running_ray(config: RayConfig, tmp_path: Path, unbroken: str) -> None:
    import ray

    scenario = write_scenario(tmp_path, CONTENT)
    address = ray.get_runtime_context().gcs_address
    done = programs.run("run", str(scenario), "--address", address, "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["digest"] == unbroken
    assert ray.is_initialized()
