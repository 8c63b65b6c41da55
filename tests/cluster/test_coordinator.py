"""What a run records, and that packing, resuming and the number of servers do not show in it."""

from pathlib import Path

import pytest

from cluster.checkpoints import CheckpointStore, is_worth_it
from cluster.coordinator import FINISHED, OOM_KILL, Coordinator, Progress
from cluster.errors import InputError, RunFailed
from cluster.executor import InlineExecutor
from cluster.plan import Plan
from cluster.supervision import Supervisor
from tests.cluster.fleets import BUILDER, digest, document, plan_of, run_plan

MS = 10**6


@pytest.mark.parametrize("packed", [2, 4])
def test_packing_changes_nothing(tmp_path: Path, packed: int) -> None:
    alone, together = (plan_of(tmp_path, document(packed=size)) for size in (1, packed))
    assert len(alone.cells) > len(together.cells)
    one = digest(alone, run_plan(alone, tmp_path / "alone"))
    assert digest(together, run_plan(together, tmp_path / "together")) == one


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    plans = [plan_of(tmp_path, document() | {"seed": seed}) for seed in (1, 2)]
    first, second = (digest(plan, run_plan(plan, tmp_path / str(index))) for index, plan in enumerate(plans))
    assert first != second


def test_counters_are_sampled_on_time_for_every_member(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, document())
    result = run_plan(plan, tmp_path / "run")
    times: dict[str, list[int]] = {}
    for time_ns, member, _ in result.samples:
        times.setdefault(plan.specs[member]["id"], []).append(time_ns // MS)
    assert times["h"] == times["h.guest-0"] == times["m-2"] == list(range(500, 4001, 500))
    # Finished at the end of epoch 12: sampled there, then never again.
    assert times["early-0"] == times["early-1"] == [500, 1000, 1300]
    assert result.samples == sorted(result.samples, key=lambda sample: sample[:2])
    assert result.end_ns == 4000 * MS


def test_a_machine_that_has_finished_rests(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, document())
    result = run_plan(plan, tmp_path / "run")
    epochs = {
        spec["id"]: counters["epochs"] for spec, counters in zip(plan.specs, result.counters, strict=True)
    }
    assert epochs["early-0"] == 13
    assert epochs["m-0"] == epochs["h"] == epochs["h.guest-2"] == 40


def test_a_host_goes_on_until_all_its_guests_have_finished(tmp_path: Path) -> None:
    def guest(epoch: int) -> dict[str, object]:
        return {"machine": {"memory": "16MiB", "hw": {"cost": {"finish_at_epoch": epoch}}}}

    content = document() | {"machines": []}
    content["hosts"][0]["guests"] = [guest(3), guest(9)]
    result = run_plan(plan_of(tmp_path, content), tmp_path / "run")
    assert [counters["epochs"] for counters in result.counters] == [10, 10, 10]
    assert result.end_ns == 1000 * MS
    assert result.events == [(400 * MS, 1, FINISHED), (1000 * MS, 2, FINISHED)]


def test_a_killed_guest_is_reported_once(tmp_path: Path) -> None:
    content = document() | {"machines": []}
    content["hosts"][0]["hw"]["cost"]["kill_at_epoch"] = 7
    result = run_plan(plan_of(tmp_path, content), tmp_path / "run")
    assert result.events == [(800 * MS, 1, OOM_KILL)]


def test_the_last_epoch_may_be_short(tmp_path: Path) -> None:
    content = document() | {"duration": "1030ms"}
    result = run_plan(plan_of(tmp_path, content), tmp_path / "run")
    assert result.end_ns == 1030 * MS
    assert result.counters[0]["epochs"] == 11


@pytest.mark.parametrize("packed", [1, 2])
def test_checking_every_border_changes_nothing(tmp_path: Path, packed: int) -> None:
    unchecked = plan_of(tmp_path, document(packed=packed))
    checked = plan_of(tmp_path, document(packed=packed) | {"check_invariants": True})
    result = run_plan(checked, tmp_path / "checked")
    assert result.events == run_plan(unchecked, tmp_path / "unchecked").events
    assert result.counters[0]["epochs"] == 40
    assert all(spec["check_invariants"] for spec in checked.specs)


@pytest.mark.parametrize(
    ("work_ns", "spent_ns", "nr_taken", "worth_it"),
    [
        (0, 0, 0, True),  # the first, whatever it takes
        (1000, 20, 1, True),  # a second one makes it 40 of 1000
        (1000, 21, 1, False),
        (1000, 30, 3, True),
        (1000, 33, 3, False),
    ],
)
def test_checkpoints_take_a_part_of_a_run(work_ns: int, spent_ns: int, nr_taken: int, worth_it: bool) -> None:
    assert is_worth_it(work_ns, spent_ns, nr_taken, max_percent=4) is worth_it


def test_a_checkpoint_that_is_not_worth_it_is_left_out(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, document(sleep_us=0))
    supervisor = Supervisor(InlineExecutor())
    (tmp_path / "run").mkdir()
    store = CheckpointStore(tmp_path / "run", max_percent=0)
    coordinator = Coordinator(plan, supervisor, store)
    records = coordinator.server_records(BUILDER, resume=False)
    supervisor.executor.start(len(records))
    supervisor.start(records)
    coordinator.run()
    assert sorted(path.name for path in store.folder.glob("cell-0.*.checkpoint")) == [
        "cell-0.000010.checkpoint"
    ]


def test_progress_never_goes_back_and_reaches_the_end(tmp_path: Path) -> None:
    seen: list[Progress] = []
    run_plan(plan_of(tmp_path, document()), tmp_path / "run", on_progress=seen.append)
    times = [progress.now_ns for progress in seen]
    assert times == sorted(times)
    assert times[-1] == seen[-1].duration_ns
    assert seen[-1].host_counters["ksm.pages_sharing"] == 30
    assert seen[-1].nr_guests == 8


class _KilledError(Exception):
    """Stands for the end of the driver's process."""


def interrupt_at(plan: Plan, folder: Path, at_ns: int, *, resume: bool = False) -> None:
    def stop(progress: Progress) -> None:
        if progress.now_ns >= at_ns:
            raise _KilledError

    with pytest.raises(_KilledError):
        run_plan(plan, folder, resume=resume, on_progress=stop)


@pytest.mark.parametrize("at_ms", [300, 1000, 2300, 3900])
def test_a_resumed_run_ends_as_the_unbroken_one(tmp_path: Path, at_ms: int) -> None:
    plan = plan_of(tmp_path, document())
    unbroken = run_plan(plan, tmp_path / "unbroken")
    interrupt_at(plan, tmp_path / "broken", at_ms * MS)
    resumed = run_plan(plan, tmp_path / "broken", resume=True)
    assert digest(plan, resumed) == digest(plan, unbroken)
    assert resumed.samples == unbroken.samples
    assert resumed.events == unbroken.events


def test_a_run_may_be_interrupted_again_and_again(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, document())
    unbroken = digest(plan, run_plan(plan, tmp_path / "unbroken"))
    interrupt_at(plan, tmp_path / "broken", 1200 * MS)
    for at_ms in (1700, 2300, 3600):
        interrupt_at(plan, tmp_path / "broken", at_ms * MS, resume=True)
    assert digest(plan, run_plan(plan, tmp_path / "broken", resume=True)) == unbroken


def test_only_the_last_checkpoint_is_kept(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, document())
    run_plan(plan, tmp_path / "run")
    kept = sorted(path.name for path in (tmp_path / "run").glob("cell-0.*.checkpoint"))
    assert kept == ["cell-0.000030.checkpoint"]


@pytest.mark.parametrize("damage", ["cut", "altered", "other"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, damage: str) -> None:
    plan = plan_of(tmp_path, document())
    run_plan(plan, tmp_path / "run")
    [path] = (tmp_path / "run").glob("cell-0.*.checkpoint")
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[:-10]
    elif damage == "altered":
        data[-10] ^= 1
    else:
        data[0] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"cell-0.000030.checkpoint: (damaged|not a checkpoint)"):
        run_plan(plan, tmp_path / "run", resume=True)


def test_a_checkpoint_of_another_fleet_is_refused(tmp_path: Path) -> None:
    run_plan(plan_of(tmp_path, document(packed=2)), tmp_path / "run")
    with pytest.raises(InputError, match="cell-0: the checkpoint is of another fleet"):
        run_plan(plan_of(tmp_path, document(packed=4)), tmp_path / "run", resume=True)


def test_a_failed_run_keeps_its_checkpoints(tmp_path: Path) -> None:
    content = document()
    content["hosts"][0]["hw"]["cost"]["fail_at_epoch"] = 25
    with pytest.raises(RunFailed):
        run_plan(plan_of(tmp_path, content), tmp_path / "run")
    loaded = CheckpointStore(tmp_path / "run").load(0)
    assert loaded is not None
    assert loaded.epoch == 20
    assert len(loaded.samples) == 4 * 4  # of a host and three guests at 0.5, 1, 1.5 and 2 s
