import pytest

from cluster.report_numbers import as_amount, as_percent, as_size, as_time, digits
from shared.constants import NS_PER_MS, NS_PER_S


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"),
        (0.126, "0.13"),
        (1.0, "1"),
        (8.801, "8.8"),
        (37.97, "38"),
        (737.6, "738"),
        (12345.6, "12,346"),
    ],
)
def test_three_digits_are_written(value: float, expected: str) -> None:
    assert digits(value) == expected


def test_units_fit_the_quantity() -> None:
    def plain(text: str) -> str:
        return text.replace("\u00a0", " ")

    assert [plain(as_size(pages)) for pages in (0, 1, 256, 188_826, 573_440)] == [
        "0 MiB",
        "4 KiB",
        "1 MiB",
        "738 MiB",
        "2.19 GiB",
    ]
    assert plain(as_size(-256)) == "-1 MiB"
    times = (0, 250, 521 * NS_PER_MS, 140 * NS_PER_S, 1800 * NS_PER_S, 5 * 86400 * NS_PER_S)
    assert [plain(as_time(time)) for time in times] == [
        "0 s",
        "250 ns",
        "521 ms",
        "140 s",
        "30 min",
        "5 days",
    ]
    counts = (999, 9_999, 10_000, 1_234_567, 5_000_000_000)
    assert [plain(as_amount(count)) for count in counts] == [
        "999",
        "9,999",
        "10 thousand",
        "1.23 million",
        "5 billion",
    ]
    assert plain(as_percent(0.3289)) == "32.9 %"
