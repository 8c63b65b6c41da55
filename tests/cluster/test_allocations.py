"""Allocation traces in scenarios: which keys there are, how a machine gets its trace, and what the report draws."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.allocations import with_allocations
from cluster.cli import run_command
from cluster.config_allocations import Allocations
from cluster.errors import InputError
from cluster.plan import real_bytes_needed
from cluster.report_alloc_charts import alloc_charts
from cluster.report_chart import time_axis
from cluster.report_data import History
from scenarios.alloc_events import Demand, Draws
from scenarios.alloc_patterns import DEFAULT_LIVE, generate
from shared.alloc_csv import write_csv
from shared.alloc_kind import AllocKind, AllocOp
from shared.constants import NS_PER_S
from tests.cluster.fleets import plan_of, write_scenario
from tests.models.allocation_trace import trace_of_rows

NETWORK = {"allocations": "network", "operations": 1000, "cpus": [0, 1], "live": 50}
TRACE = trace_of_rows([(1, AllocOp.ALLOC, AllocKind.KMALLOC, 64, 0, 1), (0, AllocOp.FREE, 0, 0, 0, 1)])


def scenario(*processes: dict[str, Any], **keys: Any) -> dict[str, Any]:
    body = {"name": "box", "memory": "64MiB", "cpus": 2, "processes": list(processes)} | keys
    return {"name": "test", "duration": "1s", "machines": [body]}


def test_a_pattern_becomes_the_trace_of_its_machine(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path, scenario({"workload": "uniform", "memory": "1MiB", "operations": 1}, NETWORK, count=2)
    )
    assert plan.specs[1]["processes"][1] == {
        "allocations": {
            "pattern": "network",
            "operations": 1000,
            "cpus": [0, 1],
            "live": 50,
            "trace_seed": None,
        },
        "loops": 1,
        "think_ns": 0,
    }
    made = [with_allocations(spec)["processes"][1]["allocations"] for spec in plan.specs]
    for number, trace in enumerate(made):
        expected = generate("network", Demand(1000, (0, 1), 50), Draws(plan.specs[0]["seed"], number, 1))
        assert np.array_equal(trace.number, expected.number)
    assert not np.array_equal(made[0].number, made[1].number)
    assert with_allocations({"processes": [{"workload": "uniform"}]}) == {
        "processes": [{"workload": "uniform"}]
    }


def test_a_seed_of_its_own_gives_all_machines_one_trace(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, scenario(NETWORK | {"trace_seed": 7}, NETWORK | {"trace_seed": 7}, count=2))
    made = [process["allocations"] for spec in plan.specs for process in with_allocations(spec)["processes"]]
    expected = generate("network", Demand(1000, (0, 1), 50), Draws(7, 0, 0))
    assert [np.array_equal(trace.number, expected.number) for trace in made] == [True] * 4


def test_a_file_is_found_beside_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("".join(write_csv(TRACE)))
    plan = plan_of(tmp_path, scenario({"allocations": "mine.csv", "loops": 0, "think_ns": 5}))
    assert plan.specs[0]["processes"][0] == {
        "allocations": {"path": str((tmp_path / "mine.csv").resolve())},
        "loops": 0,
        "think_ns": 5,
    }
    made = with_allocations(plan.specs[0])["processes"][0]["allocations"]
    assert made.size.tolist() == [64, 64]


def test_events_count_as_memory(tmp_path: Path) -> None:
    bytes_needed = [
        real_bytes_needed(plan_of(tmp_path, scenario(NETWORK | {"operations": operations})))
        for operations in (1000, 1_001_000)
    ]
    assert bytes_needed[1] - bytes_needed[0] == 36 * 1_000_000


def test_what_is_left_out_is_as_the_pattern_has_it() -> None:
    said = Allocations(allocations="page-tables")
    assert (said.operations, said.cpus, said.nr_live) == (1_000_000, (0,), DEFAULT_LIVE["page-tables"])
    assert Allocations(allocations="page-tables", live=7).nr_live == 7


@pytest.mark.parametrize(
    ("process", "message"),
    [
        (NETWORK | {"cpus": [0, 2]}, "processes.0.cpus: 2, but there are 2 CPUs"),
        (NETWORK | {"cpus": [0, 0]}, "cpus: 0 stands there twice"),
        (NETWORK | {"allocations": "producer-consumer", "cpus": [1]}, "producer-consumer needs 2, not 1"),
        (NETWORK | {"operations": 0}, "operations"),
        (NETWORK | {"operations": "1G"}, "operations"),
        (NETWORK | {"order": 3}, "order"),
        ({"allocations": "mine.npz", "operations": 5}, "operations: 'mine.npz' is none of short-lived, "),
        ({"allocations": "absent"}, "'absent': no absent.npz in "),
        ({"allocations": "bad.csv"}, "event 0: frees id 3, which was never allocated"),
        ({"allocations": "far.csv"}, "event 0: CPU 5, but the machine has 2 CPUs"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, process: dict[str, Any], message: str) -> None:
    head = "cpu,op,kind,size,gfp,id\n"
    (tmp_path / "bad.csv").write_text(f"{head}0,free,,,,3\n")
    (tmp_path / "far.csv").write_text(f"{head}5,alloc,kmalloc,8,none,3\n")
    with pytest.raises(InputError) as refused:
        plan_of(tmp_path, scenario(process))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"allocator": "sleb"}, "allocator"),
        ({"slob_policy": "worst-fit"}, "slob_policy"),
        ({"slab_debug": "X"}, "slab_debug"),
    ],
)
def test_an_allocator_that_does_not_exist_is_refused(
    tmp_path: Path, keys: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_scenario(tmp_path, scenario(NETWORK, **keys))
    assert run_command(["validate", str(file)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


# --- charts -----------------------------------------------------------------------------------------------


def history(**values: list[int]) -> History:
    return History(
        np.array([NS_PER_S, 2 * NS_PER_S]), {name: np.array(column) for name, column in values.items()}
    )


def test_the_report_draws_what_the_trace_did() -> None:
    charts = alloc_charts(
        history(
            alloc_count=[10, 30],
            alloc_free_count=[0, 20],
            alloc_cycles=[1000, 2000],
            alloc_free_cycles=[0, 800],
            alloc_path_fast=[10, 20],
            alloc_path_grow=[0, 10],
            free_path_fast=[0, 20],
            alloc_asked_bytes=[4096, 8192],
            alloc_taken_bytes=[4096, 10240],
            alloc_held_bytes=[8192, 12288],
            buddy_order_0=[512, 512],
            buddy_order_9=[1, 1],
            unusable_order_9=[0, 500],
        ),
        time_axis(2 * NS_PER_S),
    )
    captions = {chart.title: chart.caption for chart in charts}
    assert len(captions) == 5
    assert "50 allocations and frees" in captions["Which way allocations went"]
    assert "80\u00a0%" in captions["Which way allocations went"]
    assert "67 cycles and a free took 40 cycles" in captions["What an operation costs"]
    assert "50\u00a0% more than asked for" in captions["Memory taken and asked for"]
    assert "2\u00a0MiB of 4\u00a0MiB" in captions["Free blocks by order"]
    assert "50\u00a0% for order 9" in captions["Free memory that is of no use"]


def test_a_machine_without_such_a_trace_has_no_such_chart() -> None:
    assert alloc_charts(history(pgfault=[1, 2]), time_axis(1)) == []


def test_a_trace_of_frames_alone_has_no_paths() -> None:
    charts = alloc_charts(history(alloc_count=[1, 2], alloc_failures=[0, 3]), time_axis(1))
    assert "Which way allocations went" not in [chart.title for chart in charts]
    assert "3 allocations failed" in charts[0].caption
