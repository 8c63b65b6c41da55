"""Lost servers: whatever is lost, and whenever, the results are those of the unbroken run."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.calls import Advance, Advanced, Build, pack, unpack
from cluster.errors import InputError, RunFailed
from cluster.machine_server import MachineServer
from cluster.plan import Plan
from cluster.supervision import MAX_RESTORATIONS, ServerRecord, answer_hash, note_answer, restoration
from tests.cluster.fleets import digest, document, plan_of, run_plan
from tests.cluster.losing_executor import LosingExecutor

EPOCHS = 40
SERVERS = 6  # two of guests, the host's, three of machines
HOST_SERVER = 2


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return plan_of(tmp_path_factory.mktemp("plan"), document())


@pytest.fixture(scope="module")
def unbroken(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> str:
    return digest(plan, run_plan(plan, tmp_path_factory.mktemp("unbroken")))


@pytest.mark.parametrize("fate", ["before", "after", "silent"])
@pytest.mark.parametrize("server", [0, HOST_SERVER, 5])
def test_a_server_lost_half_way_changes_nothing(
    plan: Plan, unbroken: str, tmp_path: Path, server: int, fate: str
) -> None:
    at = EPOCHS // 2 + 3 if server != 5 else 8
    executor = LosingExecutor(
        lambda who, position, attempt: fate if (who, position, attempt) == (server, at, 1) else ""
    )
    assert digest(plan, run_plan(plan, tmp_path, executor)) == unbroken
    assert executor.losses == [(server, at, fate)]


@settings(max_examples=30)
@given(
    losses=st.dictionaries(
        st.tuples(st.integers(0, SERVERS - 1), st.integers(0, EPOCHS - 1)),
        st.sampled_from(["before", "after", "silent"]),
        max_size=6,
    )
)
def test_any_losses_change_nothing(
    plan: Plan, unbroken: str, tmp_path_factory: pytest.TempPathFactory, losses: dict[tuple[int, int], str]
) -> None:
    executor = LosingExecutor(
        lambda who, position, attempt: losses.get((who, position), "") if attempt == 1 else ""
    )
    folder = tmp_path_factory.mktemp("losses")
    assert digest(plan, run_plan(plan, folder, executor)) == unbroken


def test_a_server_lost_again_while_it_is_restored_is_restored_again(
    plan: Plan, unbroken: str, tmp_path: Path
) -> None:
    def fate(server: int, position: int, attempt: int) -> str:
        first_loss = (position, attempt) == (27, 1)
        second_loss = (position, attempt) == (24, 2)  # in the replay from the snapshot at 20
        return "before" if server == 0 and (first_loss or second_loss) else ""

    executor = LosingExecutor(fate)
    assert digest(plan, run_plan(plan, tmp_path, executor)) == unbroken
    assert executor.losses == [(0, 27, "before"), (0, 24, "before")]


def test_a_call_that_always_kills_its_server_fails_the_run(plan: Plan, tmp_path: Path) -> None:
    executor = LosingExecutor(lambda server, position, _: "before" if (server, position) == (0, 5) else "")
    with pytest.raises(RunFailed, match=rf"h.guest-0, h.guest-1: lost {MAX_RESTORATIONS + 1} times since"):
        run_plan(plan, tmp_path, executor)


def test_a_member_that_raises_fails_the_run_with_one_line(tmp_path: Path) -> None:
    content = document()
    content["machines"][0]["hw"] = {"cost": {"fail_at_epoch": 7}}
    with pytest.raises(RunFailed, match=r"^m-0: asked to fail here$") as caught:
        run_plan(plan_of(tmp_path, content), tmp_path / "run")
    assert "Traceback" in caught.value.detail


def test_a_member_that_cannot_be_built_is_wrong_input(tmp_path: Path) -> None:
    content = document()
    content["hosts"][0]["hw"] = {"cost": {"build_fails": 1}}
    with pytest.raises(InputError, match=r"^h: 67108864 bytes is less than the kernel needs$"):
        run_plan(plan_of(tmp_path, content), tmp_path / "run")


def answer(reply: bytes, *, snapshots: tuple[bytes, ...] = ()) -> Advanced:
    return Advanced([reply], [False], [], list(snapshots), work_ns=0, snapshot_ns=0)


def advance(position: int) -> Advance:
    return Advance("run", position, [b"order"], sample=True, snapshot=True)


def test_a_restoration_builds_from_the_snapshot_and_replays_what_came_after() -> None:
    record = ServerRecord("m:f", [{"id": "a"}])
    note_answer(record, advance(0), answer(b"zero"))
    note_answer(record, advance(1), answer(b"one", snapshots=(b"state",)))
    note_answer(record, advance(2), answer(b"two"))
    build, replay = restoration(record)
    assert (build.position, build.snapshots) == (2, [b"state"])
    assert [(call.position, expected) for call, expected in replay] == [(2, answer_hash(answer(b"two")))]
    assert not any(call.sample or call.snapshot for call, _ in replay)
    assert record.next_position == 3


def test_a_replay_that_answers_otherwise_fails_the_run(plan: Plan, tmp_path: Path) -> None:
    executor = _ExecutorOfLiars(
        lambda server, position, attempt: "before" if (server, position, attempt) == (0, 9, 1) else ""
    )
    with pytest.raises(RunFailed, match="the replay of call 0 gave another answer than before"):
        run_plan(plan, tmp_path, executor)


class _Liar(MachineServer):
    """A server that builds, and then answers anything."""

    def call(self, data: bytes) -> bytes:
        return super().call(data) if isinstance(unpack(data), Build) else pack(answer(b"something else"))


class _ExecutorOfLiars(LosingExecutor):
    def revive(self, server: int) -> None:
        self._servers[server] = _Liar()
