"""Times: what is printed is read back; every other form is refused by name."""

import random

import pytest

from v3s.files.times import parse_time, time_text


def test_what_is_printed_is_read_back_to_a_twentieth_of_a_second() -> None:
    chance = random.Random(0)
    for seconds in (
        0,
        0.04,
        0.05,
        59.94,
        59.95,
        59.99,
        3599.95,
        86_399.99,
        *(chance.uniform(0, 1e6) for _ in range(500)),
    ):
        assert parse_time(time_text(seconds)) == pytest.approx(seconds, abs=0.0501)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("754.25", 754.25), ("90", 90), ("12:30", 750), ("1:02:03.5", 3723.5), ("0:00:00.04", 0.04), (" 5 ", 5)],
)
def test_forms(text: str, seconds: float) -> None:
    assert parse_time(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "-1", "12:60", "1:60:00", "1:2:3:4", "12:", ":30", "1e3", "nan", "inf", "12.5:30", "5s", "\u0661", "9" * 50],
)
def test_other_forms_are_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match=r"^start is '.*', which is not a time: give seconds \(754\.5\), minutes"):
        parse_time(text, "start")
