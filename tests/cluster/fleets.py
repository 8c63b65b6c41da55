"""Small fleets of fake members, and ways to run them in this process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from cluster.checkpoints import CheckpointStore
from cluster.coordinator import Coordinator, FleetResult, Progress
from cluster.executor import Executor, InlineExecutor
from cluster.plan import Plan, make_plan
from cluster.results import digest_of
from cluster.scenario_file import load_scenario
from cluster.supervision import Supervisor

BUILDER = "tests.cluster.fake_member:build_member"
EVERY_TIME = 100  # percent of a run that checkpoints may take: they are never left out


def document(*, nr_guests: int = 3, packed: int = 2, sleep_us: int = 0) -> dict[str, Any]:
    """A host with guests and five plain machines, two of which finish early: 40 epochs, 4 checkpoints."""
    cost = {"sleep_us": sleep_us}
    body = {"memory": "16MiB", "hw": {"cost": cost}}
    return {
        "name": "fake",
        "duration": "4s",
        "epoch": "100ms",
        "checkpoint_every": "1s",
        "metrics_every": "500ms",
        "machines_per_actor": packed,
        "hosts": [
            {
                "name": "h",
                "memory": "64MiB",
                "hw": {"cost": cost},
                "guests": [{"machine": body, "count": nr_guests}],
            }
        ],
        "machines": [
            {"name": "m", "memory": "16MiB", "count": 3},
            {"name": "early", "memory": "16MiB", "count": 2, "hw": {"cost": {"finish_at_epoch": 12}}},
        ],
    }


def write_scenario(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "fake.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def plan_of(folder: Path, content: dict[str, Any]) -> Plan:
    path = write_scenario(folder, content)
    return make_plan(load_scenario(path), path)


def run_plan(
    plan: Plan,
    folder: Path,
    executor: Executor | None = None,
    *,
    resume: bool = False,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
    builder: str = BUILDER,
) -> FleetResult:
    """Run a plan on servers that are already there, or inline."""
    executor = executor or InlineExecutor()
    supervisor = Supervisor(executor)
    folder.mkdir(exist_ok=True)
    coordinator = Coordinator(plan, supervisor, CheckpointStore(folder, max_percent=EVERY_TIME), on_progress)
    records = coordinator.server_records(builder, resume=resume)
    executor.start(len(records))
    supervisor.start(records)
    return coordinator.run()


def digest(plan: Plan, result: FleetResult) -> str:
    return digest_of([spec["id"] for spec in plan.specs], result)
