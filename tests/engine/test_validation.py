"""What a task may be: every refusal, told all at once, and the one form in which content is kept."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduling import services
from scheduling.errors import InvalidDefinition
from scheduling.models import TaskRevision
from scheduling.validation import clean_content, clean_parameters
from workflows.validation import clean_content as clean_workflow

SHELL: dict[str, Any] = {"kind": "shell", "spec": {"command": "true"}}


def errors_of(**content: Any) -> dict[str, str]:
    with pytest.raises(InvalidDefinition) as refusal:
        clean_content(SHELL | content)
    return refusal.value.errors


def test_what_is_left_out_takes_its_default() -> None:
    cleaned = clean_content(SHELL)
    assert tuple(cleaned) == TaskRevision.CONTENT
    assert (cleaned["mode"], cleaned["trigger"], cleaned["timezone"]) == ("random", "manual", "UTC")
    assert (cleaned["timeout"], cleaned["success_ratio"], cleaned["shards"]) == (None, 100, [])


def test_every_mistake_is_told_at_once() -> None:
    errors = errors_of(
        spec={"comand": "true"},
        success_ratio=101,
        timeout=-5,
        cron="61 * * * *",
        timezone="Europe/Berlim",
        mode="brodcast",
        parameters={"a b": 1, "day": "${data_dat}"},
        retry_count=-1,
        tiemout=3,
    )
    assert set(errors) == {
        *("spec.comand", "spec.command", "success_ratio", "timeout", "cron", "timezone", "mode"),
        *("parameters.a b", "parameters.day", "retry_count", "tiemout"),
    }
    assert "Did you mean “timeout”" in errors["tiemout"]
    assert "Did you mean “broadcast”" in errors["mode"]
    assert "Did you mean “Europe/Berlin”" in errors["timezone"]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("kind", "shel", "“shel” is not one of python, shell, sql, http. Did you mean “shell”?"),
        ("kind", None, "It is missing; it is one of python"),
        ("success_ratio", 0, "0 is not a whole number from 1 to 100."),
        ("success_ratio", 101, "101 is not a whole number from 1 to 100."),
        ("success_ratio", True, "True is not a whole number"),
        ("success_ratio", 99.5, "99.5 is not a whole number"),
        ("success_ratio", "90", "“90” is not a whole number"),
        ("timeout", 0, "0 is too short; the least is 1s."),
        ("timeout", "-10m", "is negative"),
        ("timeout", "soon", "is no duration; write e.g. 45s, 10m"),
        ("timeout", True, "is no duration"),
        ("retry_count", 1001, "1001 is not a whole number from 0 to 1000."),
        ("retry_interval", -1, "is negative"),
        ("overlap", "wait", "“wait” is not one of allow, skip, queue, replace."),
        ("misfire", "all", "“all” is not one of skip, run_once, run_all."),
        ("priority", 101, "101 is not a whole number from -100 to 100."),
        ("timezone", "Mars/Olympus", "“Mars/Olympus” is not a time zone"),
        ("timezone", "../../etc/passwd", "is not a time zone"),
        ("timezone", None, "None is not a time zone"),
        ("trigger", "daily", "“daily” is not one of cron, fixed_rate, workflow, manual."),
        ("parameters", [1], "[1] is not a map of names to values."),
    ],
)
def test_a_bad_value_is_refused_with_what_was_given_and_what_is_allowed(
    field: str, value: object, said: str
) -> None:
    errors = errors_of(**{field: value})
    assert set(errors) == {field}
    assert said in errors[field]


@pytest.mark.parametrize(
    "cron", ["* * * *", "61 * * * *", "x", "0 0 31 2 *", "0 0 * * 3#6", "1 2 3 4 5 6 7 8", "* " * 100]
)
def test_what_is_no_cron_expression_is_refused(cron: str) -> None:
    assert "is not a cron expression" in errors_of(cron=cron)["cron"]


@pytest.mark.parametrize(
    ("name", "expression"),
    [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@Midnight", "0 0 * * *"),
        (" @weekly ", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
    ],
)
def test_a_named_cron_is_stored_as_its_expression(name: str, expression: str) -> None:
    assert clean_content(SHELL | {"cron": name})["cron"] == expression


def test_an_unknown_name_of_a_cron_is_refused_with_the_known_ones() -> None:
    assert errors_of(cron="@dayly")["cron"].startswith("“@dayly” is not one of @hourly, @daily")
    assert errors_of(cron="@dayly")["cron"].endswith("Did you mean “@daily”?")
    assert "“@reboot” is not one of" in errors_of(cron="@reboot")["cron"]


@pytest.mark.parametrize(
    ("expression", "here"),
    [
        ("0 0 12 ? * *", "0 12 * * *"),
        ("0 0/15 * * * ?", "*/15 * * * *"),
        ("30 5/10 8-18 * * ?", "30 5/10 8-18 * * *"),
        ("0 0 12 ? * 1", "0 12 * * 0"),
        ("0 0 12 ? * 7", "0 12 * * 6"),
        ("0 0 12 ? * 2-6", "0 12 * * 1-5"),
        ("0 0 12 ? * 6-2", "0 12 * * 5,6,0,1"),
        ("0 0 12 ? * MON-FRI", "0 12 * * MON-FRI"),
        ("0 0 12 ? * FRI-MON", "0 12 * * 5,6,0,1"),
        ("0 0 12 ? * 2/2", "0 12 * * 1,3,5"),
        ("0 0 12 ? * 2,4", "0 12 * * 1,3"),
        ("0 0 12 ? * 6L", "0 12 * * 5L"),
        ("0 0 12 ? * 6#3", "0 12 * * 5#3"),
        ("0 0 12 ? * L", "0 12 * * 6"),
        ("0 0 12 L * ?", "0 12 L * *"),
        ("0 0 12 LW * ?", "0 12 LW * *"),
        ("0 0 12 1 * ? *", "0 12 1 * *"),
        ("0 12 ? * 2", "0 12 * * 1"),
    ],
)
def test_a_quartz_expression_is_refused_with_what_it_is_here(expression: str, here: str) -> None:
    said = errors_of(cron=expression)["cron"]
    assert said == f"“{expression}” is Quartz syntax; write {here}."
    assert clean_content(SHELL | {"cron": here})["cron"] == here


@pytest.mark.parametrize(
    ("expression", "part"),
    [
        ("0 0 12 15W * ?", "15W"),
        ("0 0 12 L-3 * ?", "L-3"),
        ("0 0 12 L-3W * ?", "L-3W"),
        ("0 12 15W * *", "15W"),
        ("0 0 12 1 1 ? 2027", "2027"),
        ("0 0 12 ? * 8", "8"),
    ],
)
def test_quartz_without_an_equivalent_says_which_part(expression: str, part: str) -> None:
    said = errors_of(cron=expression)["cron"]
    assert said.startswith(
        f"“{expression}” is Quartz syntax, and “{part}” has no equivalent here. Write minute,"
    )


def test_a_quartz_expression_that_cannot_be_read_is_named_as_such() -> None:
    assert errors_of(cron="0 61 12 ? * *")["cron"].startswith("“0 61 12 ? * *” is Quartz syntax. Write minute,")


@pytest.mark.django_db
@pytest.mark.parametrize("workflow_cron", ["@daily", "0 0 12 ? * 2"])
def test_a_workflow_reads_the_same_crons(workflow_cron: str) -> None:
    content = {"cron": workflow_cron, "nodes": [{"key": "a", "task": "a"}]}
    with pytest.raises(InvalidDefinition) as refusal:
        clean_workflow("a", "w", content)
    said = refusal.value.errors.get("cron", "")
    assert said == ("" if workflow_cron == "@daily" else "“0 0 12 ? * 2” is Quartz syntax; write 0 12 * * 1.")


def test_a_cron_expression_that_never_comes_due_is_refused() -> None:
    # The first of a month that is also its fifth Monday.
    assert "“0 0 */31 * 1#5” never comes due" in errors_of(cron="0 0 */31 * 1#5")["cron"]


@pytest.mark.parametrize(
    "cron", ["5 0 * * *", "*/15 8-18 * * MON-FRI", "0 0 29 2 *", "30 0 0 L * *", "0 9 * * 1#1"]
)
def test_a_cron_expression_is_kept(cron: str) -> None:
    cleaned = clean_content(SHELL | {"cron": f" {cron} ", "timezone": "America/New_York"})
    assert (cleaned["trigger"], cleaned["cron"], cleaned["timezone"]) == ("cron", cron, "America/New_York")


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ({"cron": "* * * * *", "interval": 30}, "trigger"),
        ({"trigger": "cron"}, "cron"),
        ({"trigger": "fixed_rate"}, "interval"),
        ({"trigger": "manual", "cron": "* * * * *"}, "cron"),
        ({"trigger": "workflow", "interval": 30}, "interval"),
        ({"trigger": "fixed_rate", "interval": 30, "cron": "* * * * *"}, "cron"),
        ({"interval": 0}, "interval"),
    ],
)
def test_a_trigger_and_its_schedule_must_fit(content: dict[str, Any], field: str) -> None:
    assert set(errors_of(**content)) == {field}


@pytest.mark.parametrize(
    "given_shards",
    [{0: "AA", 1: "UA"}, {"1": "UA", "0": "AA"}, ["AA", "UA"], ("AA", "UA"), "0=AA,1=UA", "1=UA, 0 = AA"],
)
def test_shards_may_be_written_as_a_map_a_list_or_pairs(given_shards: object) -> None:
    assert clean_content(SHELL | {"mode": "sharded", "shards": given_shards})["shards"] == ["AA", "UA"]


@pytest.mark.parametrize("number", [3, "3", " 3 "])
def test_a_number_makes_that_many_shards_without_parameters(number: object) -> None:
    assert clean_content(SHELL | {"mode": "sharded", "shards": number})["shards"] == ["", "", ""]


@pytest.mark.parametrize(
    ("shards", "said"),
    [
        ({0: "a", 2: "b"}, "It has no shard 1; the indexes run from 0 to 2 without a gap."),
        ({1: "a"}, "It has no shard 0"),
        ({0: "a", 10**9: "b"}, "It has no shard 1"),
        ("0=a,2=b", "It has no shard 1"),
        ("0=a,0=b", "It has shard 0 twice."),
        ({0: "a", "0": "b"}, "It has shard 0 twice."),
        ("a,b", "“a” is not index=parameter; write 0=a,1=b."),
        ("0=a,", "“” is not index=parameter"),
        ({"x": "a"}, "“x” is not a shard index"),
        ({-1: "a"}, "-1 is not a shard index"),
        ({True: "a"}, "True is not a shard index"),
        ([None], "Shard 0 has the parameter None, which is not a text."),
        (["a", True], "Shard 1 has the parameter True"),
        (["a\0b"], "Shard 0: It holds a NUL character."),
        (["\ud800"], "Shard 0: It holds half of a surrogate pair"),
        (["x" * 1001], "more than 1000 letters"),
        (["x"] * 10_001, "It has 10001 shards"),
        (1.5, "1.5 is not a list of shards; write {0: a, 1: b}, or their number."),
        (True, "True is not a list of shards"),
        (0, "0 is not a whole number from 1 to 10000."),
        ("-1", "-1 is not a whole number from 1 to 10000."),
        (10**12, "1000000000000 is not a whole number from 1 to 10000."),
        ([], "It is missing"),
    ],
)
def test_shards_that_cannot_be_are_refused(shards: object, said: str) -> None:
    assert said in errors_of(mode="sharded", shards=shards)["shards"]


def test_shards_belong_to_the_sharded_mode_only() -> None:
    assert set(errors_of(shards=["a"], shard_concurrency=2)) == {"shards", "shard_concurrency"}
    assert set(errors_of(mode="broadcast", shards=["a"])) == {"shards"}


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 10**400, {1: "a"}, object(), "a\0b", "\udc80", {"a": {"b": object()}}]
)
def test_a_parameter_that_the_database_cannot_keep_is_refused(value: object) -> None:
    assert set(errors_of(parameters={"x": value})) == {"parameters.x"}


def test_a_parameter_that_is_nested_without_end_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert "nested more than" in errors_of(parameters={"x": endless})["parameters.x"]


def test_overrides_are_checked_like_a_tasks_own_parameters() -> None:
    assert clean_parameters({"day": "${data_date}", "limit": 5}) == {"day": "${data_date}", "limit": 5}
    with pytest.raises(InvalidDefinition) as refusal:
        clean_parameters({"batch_id": 1, "x": float("nan")})
    assert set(refusal.value.errors) == {"parameters.batch_id", "parameters.x"}


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("aé\n' "),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.long
@pytest.mark.django_db
@settings(max_examples=60, deadline=None)
@given(value=json_values)
def test_content_comes_back_from_the_database_with_the_same_hash(value: object) -> None:
    from tests import factories

    made = factories.task(parameters={"x": value})
    stored = TaskRevision.objects.get(task=made)
    again = clean_content(stored.content)
    assert services.content_digest(again) == stored.digest == services.content_digest(stored.content)
