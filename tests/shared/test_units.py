"""Quantities with units."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import units
from shared.constants import INT64_MAX


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (units.parse_size, "0B", 0),
        (units.parse_size, "100B", 100),
        (units.parse_size, "4KiB", 4096),
        (units.parse_size, "512MiB", 512 * 1024**2),
        (units.parse_size, "1.75GiB", 1792 * 1024**2),
        (units.parse_size, " 2 TiB ", 2 * 1024**4),
        (units.parse_duration, "10ns", 10),
        (units.parse_duration, "100us", 100_000),
        (units.parse_duration, "20ms", 20_000_000),
        (units.parse_duration, "0.5s", 500_000_000),
        (units.parse_duration, "2min", 120_000_000_000),
        (units.parse_duration, "1h", 3_600_000_000_000),
        (units.parse_count, "1000", 1000),
        (units.parse_count, "250k", 250_000),
        (units.parse_count, "1M", 1_000_000),
        (units.parse_count, "2G", 2_000_000_000),
        (units.parse_bandwidth, "500MB/s", 500_000_000),
        (units.parse_bandwidth, "3GiB/s", 3 * 1024**3),
    ],
)
def test_text_with_a_unit_gives_the_base_unit(parse: Callable[[str], int], text: str, value: int) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text", "said"),
    [
        (units.parse_size, "512", "'512' is not a size such as 512MiB (units: B, KiB, MiB, GiB, TiB)"),
        (units.parse_size, "512mib", "'512mib' is not a size"),
        (units.parse_size, "1MB", "'1MB' is not a size"),
        (units.parse_size, "-1MiB", "'-1MiB' is not a size"),
        (units.parse_size, "", "'' is not a size"),
        (units.parse_size, "1e3KiB", "'1e3KiB' is not a size"),
        (units.parse_size, "٣KiB", "'٣KiB' is not a size"),
        (units.parse_size, "0.3B", "'0.3B' is not a size such as 512MiB: it is 0.3 of the smallest unit"),
        (units.parse_size, "8388608TiB", "it is over the limit of 9223372036854775807"),
        (units.parse_duration, "20", "'20' is not a time such as 20ms (units: ns, us, ms, s, min, h)"),
        (units.parse_duration, "20 m", "'20 m' is not a time"),
        (units.parse_count, "1K", "'1K' is not a count such as 1000 or 1M (units: none, k, M, G)"),
        (units.parse_count, "1.5", "'1.5' is not a count"),
        (units.parse_bandwidth, "500MB", "'500MB' is not a bandwidth such as 500MB/s"),
        (units.parse_size, "9" * 5000, "999...' is not a size"),
    ],
)
def test_wrong_text_is_named_with_what_is_accepted(parse: Callable[[str], int], text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"is not an? ") as caught:
        parse(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (units.format_size, 0, "0 B"),
        (units.format_size, 1023, "1023 B"),
        (units.format_size, 1792 * 1024**2, "1.75 GiB"),
        (units.format_size, 1024**3 - 1, "1 GiB"),
        (units.format_size, -(4096 + 2048), "-6 KiB"),
        (units.format_duration, 20_000_000, "20 ms"),
        (units.format_duration, 90_000_000_000, "1.5 min"),
        (units.format_count, 999, "999"),
        (units.format_count, 1_250_000, "1.25 M"),
        (units.format_bandwidth, 500_000_000, "500 MB/s"),
    ],
)
def test_a_value_is_written_in_its_largest_unit(write: Callable[[int], str], value: int, text: str) -> None:
    assert write(value) == text


@given(st.integers(0, INT64_MAX // 2))
def test_what_is_written_reads_back_within_its_two_decimals(value: int) -> None:
    for write, parse in (
        (units.format_size, units.parse_size),
        (units.format_count, units.parse_count),
    ):
        text = write(value)
        number = text.split()[0]
        try:
            read = parse(text)
        except ValueError:  # 1.01 KiB is no whole number of bytes
            assert "." in number
            continue
        assert abs(read - value) <= max(value * 0.01, 1)


@given(st.text(max_size=30))
def test_any_text_gives_a_number_or_a_value_error(text: str) -> None:
    for parse in (units.parse_size, units.parse_duration, units.parse_count, units.parse_bandwidth):
        try:
            value = parse(text)
        except ValueError as error:
            said = str(error)
        else:
            assert 0 <= value <= INT64_MAX
            continue
        assert " is not a" in said
