import datetime as dt
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduling.parameters import (
    ParameterError,
    builtins,
    check,
    expand,
    expand_text,
    format_duration,
    parse_duration,
    written,
)

KNOWN = builtins(
    cycle_time=dt.datetime(2026, 3, 2, 1, 30, tzinfo=dt.UTC),
    data_date=dt.date(2026, 3, 1),
    batch_id=815,
    shard_index=2,
    shard_count=4,
    shard_param="AA",
)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("${data_date}", "2026-03-01"),
        ("${data_date-1d}", "2026-02-28"),
        ("${data_date-1d:%Y%m%d}", "20260228"),
        ("${data_date - 1w : %d/%m}", " 22/02"),
        ("${cycle_time}", "2026-03-02T01:30:00+00:00"),
        ("${cycle_time+2h:%Y-%m-%dT%H}", "2026-03-02T03"),
        ("${cycle_time-1d+45m:%F %T}", "2026-03-01 02:15:00"),
        ("s3://x/${data_date:%Y}/${shard_index}-of-${shard_count}/${shard_param}", "s3://x/2026/2-of-4/AA"),
        ("${batch_id}", "815"),
        ("$${HOME} costs $5 and 100%", "${HOME} costs $5 and 100%"),
        ("$$$$", "$$"),
        ("{data_date}", "{data_date}"),
    ],
)
def test_an_expression_expands(written: str, expected: str) -> None:
    assert expand({"p": written}, KNOWN) == {"p": expected}


def test_expansion_reaches_into_lists_and_maps_and_leaves_everything_else_alone() -> None:
    given = {
        "days": ["${data_date}", {"next": "${data_date+1d}"}],
        "limit": 3,
        "ratio": 0.5,
        "on": True,
        "none": None,
    }

    assert expand(given, KNOWN) == given | {"days": ["2026-03-01", {"next": "2026-03-02"}]}


def test_a_value_that_looks_like_an_expression_is_not_expanded_again() -> None:
    assert expand({"p": "${shard_param}"}, KNOWN | {"shard_param": "${batch_id}"}) == {"p": "${batch_id}"}


def test_days_keep_the_wall_clock_and_hours_are_elapsed_time_when_clocks_change() -> None:
    new_york = KNOWN | {"cycle_time": dt.datetime(2026, 3, 7, 12, tzinfo=ZoneInfo("America/New_York"))}

    assert expand_text("${cycle_time+1d}", new_york, where="p") == "2026-03-08T12:00:00-04:00"
    assert expand_text("${cycle_time+24h}", new_york, where="p") == "2026-03-08T13:00:00-04:00"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (
            "${data_dat}",
            "'p': '${data_dat}' names 'data_dat', which is not known; known are cycle_time, data_date, ",
        ),
        ("${data_dat}", "Did you mean 'data_date'?"),
        ("${data_date", "'${' is never closed"),
        ("${}", "'${}' is not understood"),
        ("${data_date-1}", "is not understood"),
        ("${data_date-1y}", "has the offset unit 'y'; write m, h, d or w"),
        ("${data_date-1D}", "has the offset unit 'D'"),
        ("${data_date+2h}", "moves a date by less than a day"),
        ("${batch_id+1d}", "moves 'batch_id', which is no time"),
        ("${batch_id:%Y}", "formats 'batch_id', which is no time"),
        ("${data_date:%Q}", "has the directive '%Q'"),
        ("${data_date:%}", "has the directive '%'"),
        ("${data_date:}", "has a colon and no format"),
        ("${secret:KEY}", "names 'secret'"),
    ],
)
def test_a_mistake_is_named_when_it_is_saved_and_when_it_runs(written: str, said: str) -> None:
    assert said in check({"p": written})["p"]
    with pytest.raises(ParameterError) as refusal:
        expand({"p": written}, KNOWN)
    assert said in str(refusal.value)


def test_an_offset_beyond_the_calendar_is_refused() -> None:
    with pytest.raises(ParameterError, match="leaves the years 1 to 9999"):
        expand({"p": "${data_date+99999999999999d}"}, KNOWN)


def test_check_names_every_bad_parameter_at_once_and_where_in_it_the_mistake_is() -> None:
    errors = check({"good": "${data_date}", "bad": {"days": ["x", "${nope}"]}, "open": "${"})

    assert set(errors) == {"bad", "open"}
    assert errors["bad"].startswith("parameter 'bad.days[1]': '${nope}' names 'nope'")


@pytest.mark.parametrize(
    ("parameters", "name", "said"),
    [
        ({"1st": "x"}, "1st", "must be letters, digits and underscores"),
        ({"a-b": "x"}, "a-b", "must be letters, digits and underscores"),
        ({"data_date": "x"}, "data_date", "is built in and cannot be set"),
        ({"day": "x", "Day": "y"}, "Day", "differ only in case; jobs see both as PARAM_DAY"),
        ({"p": "a\0b"}, "p", "holds a NUL character"),
        ({"p": dt.date(2026, 1, 1)}, "p", "is a date; write a text"),
    ],
)
def test_a_parameter_that_no_job_could_be_given_is_refused(parameters: dict, name: str, said: str) -> None:
    assert said in check(parameters)[name]


def test_names_from_elsewhere_are_accepted_when_they_are_announced() -> None:
    assert check({"p": "${cycle_id}"}, also_known=["cycle_id"]) == {}


def test_substituted_values_are_quoted_as_asked() -> None:
    assert (
        expand_text("?a=${shard_param}&b", {"shard_param": "x&y"}, where="url", quote=lambda _: "Q") == "?a=Q&b"
    )


@given(st.text())
def test_text_without_a_dollar_is_never_changed(text: str) -> None:
    text = text.replace("$", "")
    assert expand({"p": text}, KNOWN) == {"p": text}


@given(st.text(alphabet="${}data_e-1:%Y "))
def test_whatever_is_written_expands_or_is_refused_and_check_agrees(text: str) -> None:
    refused = check({"p": text})
    if refused:
        with pytest.raises(ParameterError):
            expand({"p": text}, KNOWN)
    else:
        expand({"p": text}, KNOWN)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("45s", 45),
        ("10m", 600),
        ("1h30m", 5400),
        ("2d", 172800),
        ("1w", 604800),
        ("90", 90),
        (90, 90),
        (" 1h 5s ", 3605),
    ],
)
def test_a_duration_is_read(written: str | int, seconds: int) -> None:
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    "written", ["", "10 minutes", "m", "1m1h", "-5m", -1, "1.5h", True, None, "٣", "99999999d", 1.5]
)
def test_what_is_no_duration_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match=r"duration|negative|ten years"):
        parse_duration(written)  # type: ignore[arg-type]


def test_a_negative_number_of_seconds_has_no_text() -> None:
    with pytest.raises(ValueError, match="negative"):
        format_duration(-1)


@given(st.integers(0, 10 * 365 * 86400))
def test_a_duration_comes_back_from_its_text(seconds: int) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


def test_the_text_of_a_duration_is_the_shortest() -> None:
    assert [format_duration(s) for s in (0, 45, 600, 5400, 86400, 90061)] == [
        "0s",
        "45s",
        "10m",
        "1h30m",
        "1d",
        "1d1h1m1s",
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("plain text", "plain text"),
        ("", '""'),
        (" padded", '" padded"'),
        ("true", '"true"'),
        ("2026", '"2026"'),
        (True, "true"),
        (None, "null"),
        (3, "3"),
        (["AA", "é"], '["AA", "é"]'),
        ({"full": False, "day": None}, '{"full": false, "day": null}'),
    ],
)
def test_a_value_is_written_as_json_and_a_text_as_it_is_unless_it_would_read_as_another(
    value: Any, expected: str
) -> None:
    assert written(value) == expected
