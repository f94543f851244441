"""`apply`, `export` and `trigger`: mistakes with file, line and field; all or nothing; the same bytes back."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scheduling import definitions, services
from scheduling.definitions import DefinitionsMoved, InvalidDefinitions
from scheduling.models import Batch, DeploymentGroup, JournalEntry, Task, TaskGrant, TaskRevision, Team
from scheduling.states import BatchState
from scheduling.validation import clean_content
from tests import factories

pytestmark = pytest.mark.django_db

GOOD = """\
team: warehouse
groups: [{name: etl}]
tasks:
  - {name: extract, group: etl, kind: shell, command: "true", mode: sharded,
     shards: {0: AA, 1: UA, 2: NO}, timeout: 10m, retries: {count: 2, interval: 30s}, success_ratio: 100}
  - name: tidy
    group: etl
    kind: shell
    command: rm -rf "$WORKDIR"
    mode: broadcast
    trigger: {cron: "5 0 * * *", timezone: America/New_York}
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a file into the current directory and returns its name."""
    monkeypatch.chdir(tmp_path)

    def writing(text: str, name: str = "flights.yaml") -> str:
        Path(name).write_text(text)
        return name

    return writing


def apply(*files: str, **options: Any) -> str:
    out = io.StringIO()
    call_command("apply", *files, stdout=out, no_color=True, **({"yes": True} | options))
    return out.getvalue()


def export(**options: Any) -> str:
    out = io.StringIO()
    call_command("export", stdout=out, **options)
    return out.getvalue()


def forget_everything() -> None:
    """Make the installation an empty one."""
    Task.objects.update(revision=None)
    for model in (Task, DeploymentGroup, Team):
        model.objects.all().delete()


def mistakes_of(*files: str) -> list[str]:
    with pytest.raises(InvalidDefinitions) as refusal:
        definitions.read_files(files)
    return [str(mistake) for mistake in refusal.value.mistakes]


# --- mistakes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("tiemout: 5m", "tasks[0].tiemout: This field is not known. Did you mean “timeout”?"),
        ("comand: x", "tasks[0].comand: This field is not known. Did you mean “command”?"),
        ("workdir: tmp", "tasks[0].workdir: It must be an absolute path"),
        (
            "trigger: {cron: 61 * * * *}",
            "tasks[0].trigger.cron: “61 * * * *” is not a cron expression: bad minute.",
        ),
        ("trigger: {evry: 5s}", "tasks[0].trigger.evry: This field is not known. Did you mean “every”?"),
        ("trigger: {every: 0s}", "tasks[0].trigger.every: “0s” is too short"),
        ("trigger: {type: cron}", "tasks[0].trigger.cron: It is missing"),
        ("trigger: {cron: '* * * * *', every: 5s}", "tasks[0].trigger.type: It has both"),
        ("trigger: daily", "tasks[0].trigger: “daily” is not one of"),
        ("trigger: 5", "tasks[0].trigger: It is not a map; write e.g. {cron: 5 0 * * *}."),
        ("trigger: {timezone: Mars}", "tasks[0].trigger.timezone: “Mars” is not a time zone"),
        ("retries: 3", "tasks[0].retries: It is not a map; write e.g. {count: 2, interval: 30s}."),
        ("retries: {count: -1}", "tasks[0].retries.count: -1 is not a whole number from 0 to 1000."),
        ("retries: {interval: -1s}", "tasks[0].retries.interval: '-1s' is negative"),
        ("success_ratio: 0", "tasks[0].success_ratio: 0 is not a whole number from 1 to 100."),
        ("success_ratio: 101", "tasks[0].success_ratio: 101 is not a whole number from 1 to 100."),
        ("shards: {0: a, 2: b}", "tasks[0].shards: It has no shard 1"),
        ("shards: {0: a}", "tasks[0].shards: It belongs to the mode “sharded”"),
        ("timeout: -5s", "tasks[0].timeout: '-5s' is negative"),
        ("params: {day: '${data_dat}'}", "tasks[0].params.day: Parameter 'day': '${data_dat}' names"),
        ("params: [1]", "tasks[0].params: [1] is not a map"),
        ("params:", "tasks[0].params: It is empty; write a value, or leave the key out."),
        ("enabled: 1", "tasks[0].enabled: It is neither true nor false."),
        ("overlap: wait", "tasks[0].overlap: “wait” is not one of allow, skip, queue, replace."),
        ("grants: [b]", "tasks[0].grants: It is not a map; write e.g. {analytics: [rerun]}."),
        ("grants: {outside: rerun}", "tasks[0].grants.outside: It is no list of permissions"),
        ("grants: {outside: []}", "tasks[0].grants.outside: It is no list of permissions"),
        (
            "grants: {outside: [rerum]}",
            "tasks[0].grants.outside: “rerum” is not one of view, run, stop, rerun. Did you mean “rerun”?",
        ),
        ("grants: {outside: [{}]}", "tasks[0].grants.outside: {} is not one of"),
        ("grants: {warehouse: [run]}", "tasks[0].grants.warehouse: It owns the task"),
        ("grants: {outsid: [run]}", "tasks[0].grants.outsid: There is no team “outsid”; define it"),
        ("spec: [1]", "tasks[0].spec: It is not a map of the kind's own fields."),
        ("command: x", "tasks[0].command: The key stands twice; it is on line 7 already."),
    ],
)
def test_a_mistake_is_named_with_file_line_and_field(write: Any, line: str, said: str) -> None:
    factories.team("outside")
    name = write(
        "team: warehouse\ngroups: [{name: etl}]\ntasks:\n"
        f"  - name: extract\n    group: etl\n    kind: shell\n    command: 'true'\n    {line}\n"
    )
    [found] = mistakes_of(name)
    assert found.startswith(f"flights.yaml:8: {said}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("groups: []", "a.yaml:1: team: It is missing."),
        ("team: a b", "a.yaml:1: team: “a b” is no name"),
        ("team: a\ngrups: []", "a.yaml:2: grups: This field is not known. Did you mean “groups”?"),
        (
            "team: a\nzzz: []",
            "a.yaml:2: zzz: This field is not known; known are team, groups, tasks, workflows.",
        ),
        ("team: a\ngroups: etl", "a.yaml:2: groups: It is not a list; write - {name: etl}."),
        ("team: a\ngroups: [etl]", "a.yaml:2: groups[0]: It is not a map; write {name: etl}."),
        (
            "team: a\ngroups:\n- {name: etl, size: 5}",
            "a.yaml:3: groups[0].size: This field is not known; known are name.",
        ),
        ("team: a\ntasks:\n- x", "a.yaml:3: tasks[0]: It is not a map"),
        ("- team: a", "a.yaml:1: A document is a map with team, groups, tasks and workflows."),
        ("", "a.yaml: The file defines nothing."),
        ("team: [", "a.yaml:1: This is not YAML"),
    ],
)
def test_a_document_that_cannot_be_is_refused(write: Any, text: str, said: str) -> None:
    assert [mistake for mistake in mistakes_of(write(text, "a.yaml")) if said in mistake]


def test_an_unknown_group_is_named_with_those_there_are(write: Any) -> None:
    [said] = mistakes_of(write(GOOD.replace("tidy\n    group: etl", "tidy\n    group: elt")))
    assert said == (
        "flights.yaml:7: tasks[1].group: The team warehouse has no group “elt”; it has etl. Did you mean “etl”?"
    )


def test_a_group_of_another_team_is_refused(write: Any) -> None:
    factories.group("secret", team=factories.team("outside"))
    [said] = mistakes_of(write(GOOD.replace("tidy\n    group: etl", "tidy\n    group: secret")))
    assert "it belongs to the team outside, and a task runs on its own team's nodes" in said


def test_a_name_that_stands_twice_is_refused_with_both_places(write: Any) -> None:
    first = write(GOOD)
    second = write(
        "team: warehouse\n\ntasks:\n  - {name: tidy, group: etl, kind: shell, command: x}\n", "b.yaml"
    )
    [said] = mistakes_of(first, second)
    assert said.startswith("b.yaml:4: tasks[0].name: The task tidy of the team warehouse is defined twice;")
    assert said.endswith("first at flights.yaml:6.")


def test_all_mistakes_of_all_files_are_told_and_nothing_is_applied(write: Any, capsys: Any) -> None:
    bad = GOOD.replace("ratio: 100", "ratio: 101").replace("5 0 * * *", "61 0 * * *")
    other = write("team: b\ntasks:\n  - {name: x, group: y, kind: z}\n", "b.yaml")
    err = io.StringIO()
    with pytest.raises(CommandError, match="5 mistakes; nothing was applied") as refusal:
        call_command("apply", write(bad), other, "missing.yaml", yes=True, stderr=err, no_color=True)
    assert refusal.value.returncode == 1
    places = [line.split(": ")[:2] for line in err.getvalue().splitlines()]
    assert places == [
        ["b.yaml:3", "tasks[0].group"],
        ["b.yaml:3", "tasks[0].kind"],
        ["flights.yaml:5", "tasks[0].success_ratio"],
        ["flights.yaml:11", "tasks[1].trigger.cron"],
        ["missing.yaml", "The file cannot be read"],
    ]
    assert not Team.objects.exists()


# --- apply -----------------------------------------------------------------------------------------


def test_what_is_new_is_shown_and_made(write: Any) -> None:
    said = apply(write(GOOD))
    assert "team warehouse (new)\n  + group etl\n  + task extract\n" in said
    assert "4 new, 0 changed, 0 unchanged." in said
    task = Task.objects.select_related("revision").get(name="extract")
    assert task.revision is not None
    assert task.revision.shards == ["AA", "UA", "NO"]
    assert (task.revision.timeout, task.revision.retry_count, task.revision.retry_interval) == (600, 2, 30)
    assert Task.objects.get(name="tidy").next_due_at is not None
    entries = JournalEntry.objects.order_by("id").values_list("object_type", "action", "via", "reason")
    assert list(entries) == [
        (thing, "created", "shell", "apply flights.yaml")
        for thing in ("team", "deploymentgroup", "task", "task")
    ]
    assert {actor[:3] for actor in JournalEntry.objects.values_list("actor", flat=True)} == {"os:"}


def test_applying_again_changes_nothing(write: Any) -> None:
    apply(write(GOOD))
    before = (TaskRevision.objects.count(), JournalEntry.objects.count())
    assert apply("flights.yaml") == "0 new, 0 changed, 4 unchanged.\n"
    assert (TaskRevision.objects.count(), JournalEntry.objects.count()) == before


def test_a_change_is_shown_field_by_field_and_makes_one_revision(write: Any) -> None:
    apply(write(GOOD))
    said = apply(write(GOOD.replace("10m", "1h").replace("'true'", "x").replace("mode: broadcast\n    ", "")))
    assert "  ~ task extract\n      timeout: 10m → 1h\n" in said
    assert "  ~ task tidy\n      mode: broadcast → –\n" in said
    assert "0 new, 2 changed, 2 unchanged." in said
    assert Task.objects.get(name="extract").revision.number == 2  # type: ignore[union-attr]


def test_a_text_of_several_lines_is_shown_as_a_difference(write: Any) -> None:
    script = GOOD.replace('command: rm -rf "$WORKDIR"', "command: |\n      one\n      two")
    apply(write(script))
    assert "        -two\n        +three\n" in apply(write(script.replace("two", "three")))


def test_a_control_character_reaches_no_terminal(write: Any) -> None:
    said = apply(write(GOOD.replace('rm -rf "$WORKDIR"', '"echo \\e[2J\\nx"')), dry_run=True)
    assert "\x1b" not in said


def test_a_dry_run_changes_nothing(write: Any) -> None:
    assert "4 new" in apply(write(GOOD), yes=False, dry_run=True)
    assert not Team.objects.exists()


def test_without_a_terminal_it_must_be_told_to_go_on(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(CommandError, match="no terminal to ask on; nothing was applied"):
        apply(write(GOOD), yes=False)
    assert not Team.objects.exists()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("answer", "applied"), [("y\n", True), ("yes\n", True), ("\n", False), ("n\n", False), ("", False)]
)
def test_on_a_terminal_it_asks(write: Any, monkeypatch: pytest.MonkeyPatch, answer: str, applied: bool) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    if applied:
        apply(write(GOOD), yes=False)
    else:
        with pytest.raises(CommandError, match="nothing was applied"):
            apply(write(GOOD), yes=False)
    assert Team.objects.exists() is applied


def test_what_the_files_do_not_mention_is_left_alone(write: Any) -> None:
    apply(write(GOOD))
    group = DeploymentGroup.objects.get(name="etl")
    factories.task("of-its-own", group=group)
    factories.task("of-another-team")
    said = apply(write(GOOD.replace("10m", "1h")))
    assert "1 more of these teams' tasks are left alone" in said
    assert Task.objects.filter(name__startswith="of-").count() == 2


def test_a_switch_that_the_file_leaves_out_is_left_as_it_is(write: Any) -> None:
    apply(write(GOOD))
    services.set_enabled(Task.objects.get(name="tidy"), False, reason="broken today")
    assert apply("flights.yaml") == "0 new, 0 changed, 4 unchanged.\n"
    apply(write(GOOD.replace("5 0 * * *", "6 0 * * *")))
    assert Task.objects.get(name="tidy").enabled is False
    assert "      enabled: false → true\n" in apply(
        write(GOOD.replace("broadcast", "broadcast\n    enabled: true"))
    )
    assert Task.objects.get(name="tidy").enabled is True


def test_a_task_may_use_a_group_that_exists_already(write: Any) -> None:
    factories.group("etl", team=factories.team("warehouse"))
    assert "2 new, 0 changed, 1 unchanged." in apply(write(GOOD.replace("groups: [{name: etl}]", "")))


def test_a_failure_in_the_middle_leaves_nothing_behind(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = definitions.read_files([write(GOOD)])
    real = services.save_task

    def fails_at_the_second(**options: Any) -> Task:
        if options["name"] == "tidy":
            raise RuntimeError("the disk is full")
        return real(**options)

    monkeypatch.setattr(services, "save_task", fails_at_the_second)
    with pytest.raises(RuntimeError, match="disk is full"):
        definitions.apply(wanted)
    assert not Team.objects.exists()
    assert not JournalEntry.objects.exists()


def test_what_somebody_changed_since_it_was_shown_is_not_overwritten(write: Any) -> None:
    apply(write(GOOD))
    wanted = definitions.read_files([write(GOOD.replace("10m", "1h"))])
    shown = definitions.plan(wanted)
    extract = Task.objects.select_related("team", "group", "revision").get(name="extract")
    assert extract.revision is not None
    services.save_task(
        team=extract.team,
        group=extract.group,
        name="extract",
        content=extract.revision.content | {"priority": 3},
    )
    with pytest.raises(DefinitionsMoved, match="nothing was applied"):
        definitions.apply(wanted, shown)
    extract.refresh_from_db()
    assert extract.revision.priority == 3  # type: ignore[union-attr]


@pytest.mark.django_db(transaction=True)
def test_two_applies_at_once_make_everything_once(write: Any) -> None:
    wanted = definitions.read_files([write(GOOD)])
    start = threading.Barrier(2)
    failures: list[Exception] = []

    def run() -> None:
        try:
            start.wait(10)
            definitions.apply(wanted)
        except Exception as error:  # noqa: BLE001 - shown by the assertion below
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert (Team.objects.count(), Task.objects.count(), TaskRevision.objects.count()) == (1, 2, 2)


# --- grants ----------------------------------------------------------------------------------------

GRANTING = """\
team: warehouse
groups: [{name: etl}]
tasks:
  - name: extract
    group: etl
    kind: shell
    command: x
    grants: {outside: [view, rerun], analytics: [stop, run]}
---
team: outside
---
team: analytics
"""


def test_grants_are_applied_shown_and_exported(write: Any) -> None:
    said = apply(write(GRANTING))
    assert "      grants.analytics:\n        - run\n        - stop\n      grants.outside: - rerun\n" in said
    assert set(TaskGrant.objects.values_list("team__name", "permission")) == {
        ("outside", "rerun_task"),
        ("analytics", "run_task"),
        ("analytics", "stop_task"),
    }
    exported = export()
    assert exported.endswith(
        "    grants:\n      analytics:\n        - run\n        - stop\n      outside:\n        - rerun\n"
    )
    for name in ("flights.yaml", write(exported, "again.yaml")):
        assert apply(name) == "0 new, 0 changed, 5 unchanged.\n"
    forget_everything()
    apply("again.yaml")
    assert export() == exported


def test_a_changed_grant_makes_no_revision_and_stands_in_the_journal(write: Any) -> None:
    apply(write(GRANTING))
    said = apply(write(GRANTING.replace("analytics: [stop, run]", "analytics: [run]")))
    assert "  ~ task extract\n      grants.analytics:" in said
    assert Task.objects.get().revision.number == 1  # type: ignore[union-attr]
    entry = JournalEntry.objects.filter(object_type="task").latest("id")
    assert (entry.action, entry.reason) == ("revoked", "apply flights.yaml")
    assert entry.details == {"team": "analytics", "permission": "stop_task"}


def test_grants_that_the_file_leaves_out_stay_and_an_empty_map_takes_them_back(write: Any) -> None:
    apply(write(GRANTING))
    line = "    grants: {outside: [view, rerun], analytics: [stop, run]}\n"
    assert "5 unchanged" in apply(write(GRANTING.replace(line, "")))
    assert TaskGrant.objects.count() == 3
    assert "1 changed" in apply(write(GRANTING.replace(line, "    grants: {}\n")))
    assert not TaskGrant.objects.exists()


# --- export ----------------------------------------------------------------------------------------


def test_an_export_reads_like_written_by_a_person(write: Any) -> None:
    apply(write(GOOD))
    assert (
        export()
        == """\
team: warehouse

groups:
  - name: etl

tasks:
  - name: extract
    group: etl
    kind: shell
    command: 'true'
    mode: sharded
    shards:
      0: AA
      1: UA
      2: 'NO'
    timeout: 10m
    retries:
      count: 2
      interval: 30s

  - name: tidy
    group: etl
    kind: shell
    command: rm -rf "$WORKDIR"
    mode: broadcast
    trigger:
      cron: 5 0 * * *
      timezone: America/New_York
"""
    )


def test_an_export_goes_into_an_empty_installation_and_comes_out_the_same(write: Any) -> None:
    apply(write(GOOD + "---\nteam: b\n---\nteam: c\ngroups: [{name: etl}]\n"))
    services.set_enabled(Task.objects.get(name="tidy"), False)
    exported = export()
    assert apply(write(exported, "again.yaml")) == "0 new, 0 changed, 7 unchanged.\n"
    forget_everything()
    apply("again.yaml")
    assert export() == exported
    assert Task.objects.get(name="tidy").enabled is False


def test_an_export_can_be_of_one_team(write: Any) -> None:
    apply(write(GOOD + "---\nteam: b\n"))
    assert export(team=["b"]) == "team: b\n"
    with pytest.raises(CommandError, match="“c” is not one of b, warehouse"):
        export(team=["c"])


texts = st.text(
    st.sampled_from("ab 0:#-'\"\\\n\t|>&*!%@`{}[],?=~é\x85\u2028\ufeff\x1b\x7f\r🚀")
    | st.characters(codec="utf-8"),
    min_size=1,
    max_size=20,
).filter(lambda text: text.strip() and "\0" not in text)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
).filter(lambda value: "$" not in repr(value))
names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).filter(
    lambda name: name not in {"cycle_time", "data_date", "batch_id"} and not name.startswith("shard")
)
contents = st.fixed_dictionaries(
    {
        "kind": st.just("shell"),
        "spec": st.fixed_dictionaries(
            {"command": texts}, optional={"env": st.dictionaries(names, texts, max_size=2)}
        ),
    },
    optional={
        "parameters": st.dictionaries(names, plain, max_size=3),
        "timeout": st.integers(1, 10**8),
        "retry_count": st.integers(0, 1000),
        "retry_interval": st.integers(0, 10**6),
        "success_ratio": st.integers(1, 100),
        "overlap": st.sampled_from(["allow", "skip", "queue", "replace"]),
        "misfire": st.sampled_from(["skip", "run_once", "run_all"]),
        "priority": st.integers(-100, 100),
        "timezone": st.sampled_from(["UTC", "America/New_York", "Asia/Shanghai"]),
    },
)
schedules = st.sampled_from(
    [{}, {"trigger": "workflow"}, {"interval": 90}, {"cron": "*/5 * * * *"}, {"cron": "0 0 L * *"}]
)
shardings = (
    st.just({})
    | st.just({"mode": "broadcast"})
    | st.fixed_dictionaries(
        {
            "mode": st.just("sharded"),
            "shards": st.lists(texts | st.just(""), min_size=1, max_size=12),
            "shard_concurrency": st.integers(0, 5),
        }
    )
)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.filter_too_much,
        HealthCheck.function_scoped_fixture,
    ],
)
@given(contents, schedules, shardings, st.booleans())
def test_whatever_is_valid_survives_export_and_apply(
    tmp_path: Path, content: dict[str, Any], schedule: dict[str, Any], sharding: dict[str, Any], enabled: bool
) -> None:
    cleaned = clean_content(content | schedule | sharding)
    forget_everything()
    factories.task("any", group=factories.group("etl", team=factories.team("a")), enabled=enabled, **cleaned)
    exported = export()
    file = tmp_path / "exported.yaml"
    file.write_text(exported, newline="")
    wanted = definitions.read_files([str(file)])
    assert definitions.plan(wanted).changes_nothing
    assert wanted.tasks["a", "any"].content == cleaned
    forget_everything()
    definitions.apply(wanted)
    assert export() == exported


# --- trigger ---------------------------------------------------------------------------------------


def trigger(task: str, *arguments: str, **options: Any) -> str:
    out = io.StringIO()
    call_command("trigger", task, *arguments, stdout=out, stderr=out, no_color=True, **options)
    return out.getvalue()


def test_a_triggered_task_begins_a_batch_with_its_parameters() -> None:
    task = factories.task("extract", group=(node := factories.node()).group)
    said = trigger("extract", "--param", "day=2013-01-01", "--param", "limit:=5", reason="again")
    batch = Batch.objects.get()
    assert said == f"batch {batch.pk} of {task.team.name}/extract: /batches/{batch.pk}/\n"
    assert batch.parameters == {"day": "2013-01-01", "limit": 5}
    assert batch.trigger == "manual"
    assert node.group_id == batch.group_id


def test_a_batch_that_nobody_can_run_says_so() -> None:
    factories.task("extract", group=factories.group("etl"))
    assert "No node of the group etl is online; the batch waits for one." in trigger("extract")


def test_a_task_is_found_by_team_and_name() -> None:
    for team in ("a", "b"):
        factories.task("extract", group=factories.group(team=factories.team(team)))
    with pytest.raises(
        CommandError, match="several teams have a task extract: write one of a/extract, b/extract"
    ):
        trigger("extract")
    assert " of b/extract: " in trigger("b/extract")
    assert " of a/extract: " in trigger("extract", team="a")
    with pytest.raises(CommandError, match="a/extract is not of the team b; leave --team out"):
        trigger("a/extract", team="b")
    with pytest.raises(CommandError, match=r"there is no task extarct\. Did you mean [ab]/extract"):
        trigger("extarct")
    with pytest.raises(CommandError, match=r"there is no task zzz\.$"):
        trigger("zzz")


@pytest.mark.parametrize(
    ("given_param", "said"),
    [
        ("x", "write name=text"),
        ("=5", "write name=text"),
        ("x:={", "is not JSON"),
        ("batch_id=5", "parameters.batch_id"),
    ],
)
def test_a_parameter_that_cannot_be_is_refused(given_param: str, said: str) -> None:
    factories.task("extract")
    with pytest.raises(CommandError, match=said):
        trigger("extract", "--param", given_param)
    assert not Batch.objects.exists()


def test_a_refused_trigger_is_said_in_one_line() -> None:
    factories.task("extract", overlap="skip")
    trigger("extract")
    with pytest.raises(CommandError, match="skips a run while batch"):
        trigger("extract")


@pytest.mark.parametrize(("outcome", "code"), [("success", 0), ("failed", 1)])
def test_waiting_ends_with_the_batch_and_by_its_result(
    monkeypatch: pytest.MonkeyPatch, outcome: str, code: int
) -> None:
    factories.task("extract")
    # The batch ends between two looks at it.
    monkeypatch.setattr("time.sleep", lambda _seconds: factories.end_batch(Batch.objects.get(), outcome))
    if code:
        with pytest.raises(SystemExit) as leaving:
            trigger("extract", wait=True)
        assert leaving.value.code == code
    else:
        assert "success (1 of 1 instances succeeded)" in trigger("extract", wait=True)
    assert Batch.objects.get().state == BatchState(outcome)
