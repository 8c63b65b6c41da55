"""What is timed of this machine's own kernel, and how the benchmarks are set beside it."""

from pathlib import Path

import pytest

from benchmarks import __main__ as program
from benchmarks import own_kernel
from benchmarks.measure import Result
from benchmarks.own_kernel import (
    Comparison,
    OwnKernelError,
    available_bytes,
    compare_with_own_kernel,
    in_a_row,
    own_kernel_rates,
)
from benchmarks.twin import NoCompilerError

OPERATIONS = {"first_touch", "fork", "copy_on_write", "munmap"}
NAMED = [benchmark for suite in program.SUITES for benchmark in suite.BENCHMARKS if benchmark.own_kernel]


def test_every_operation_is_timed() -> None:
    rates = own_kernel_rates(nr_pages=256, nr_runs=2)
    assert set(rates) == OPERATIONS
    assert all(rate > 0 for rate in rates.values())


def test_the_median_is_of_all_runs_but_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"fork 1000 {spent_ns}" for spent_ns in (1, 1000, 2000, 500)]
    monkeypatch.setattr(own_kernel, "_run", lambda _pages, _runs: "\n".join(lines))
    assert own_kernel_rates(nr_pages=1000, nr_runs=3) == {"fork": 1e9}


def test_each_operation_stands_beside_one_benchmark() -> None:
    assert sorted(benchmark.own_kernel for benchmark in NAMED) == sorted(OPERATIONS)


def test_a_result_is_compared_with_what_the_kernel_calls_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {"first_touch": 1e6, "fork": 2e6, "copy_on_write": 4e6, "munmap": 5e6}
    monkeypatch.setattr(own_kernel, "own_kernel_rates", lambda _pages, _runs: rates)
    results = [Result(benchmark.name, 20e6, 20e6, 1.0) for benchmark in NAMED]
    compared = {each.name: each for each in compare_with_own_kernel(NAMED, results)}
    assert compared["fork"] == Comparison("fork", 20e6, 2e6)
    assert compared["fork"].reached
    assert compared["copy-on-write break"].factor == 5
    assert compared["copy-on-write break"].reached
    assert not compared["unmap"].reached


def test_what_all_take_for_a_page_is_the_sum_of_their_times() -> None:
    both = in_a_row([Comparison("a", 10e6, 1e6), Comparison("b", 2.5e6, 1e6)])
    assert both.ours_per_s == pytest.approx(2e6)
    assert both.kernel_per_s == pytest.approx(0.5e6)
    assert both.factor == pytest.approx(4)


def test_nothing_is_timed_for_a_benchmark_that_the_kernel_has_no_like_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(own_kernel, "own_kernel_rates", lambda *_: pytest.fail("timed"))
    other = next(each for suite in program.SUITES for each in suite.BENCHMARKS if not each.own_kernel)
    assert compare_with_own_kernel([other], [Result(other.name, 1.0, 1.0, 1.0)]) == []


def test_too_little_memory_is_said_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 4096000 kB\nMemAvailable: 1024 kB\n")
    monkeypatch.setattr(own_kernel, "MEMINFO", meminfo)
    assert available_bytes() == 1 << 20
    with pytest.raises(OwnKernelError, match="it takes 2 MiB of memory, and 1 are available"):
        own_kernel_rates(nr_pages=256, nr_runs=1)


def test_a_program_that_fails_says_why() -> None:
    with pytest.raises(OwnKernelError, match="mmap: Invalid argument"):
        own_kernel_rates(nr_pages=0, nr_runs=1)


def test_without_gcc_it_is_the_compiler_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoCompilerError):
        own_kernel_rates(nr_pages=1, nr_runs=1)
