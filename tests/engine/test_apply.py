"""`apply`: what would change is shown, then all of it is done or nothing."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError
from django.db import connection

from scheduling import definitions, services
from scheduling.definitions import DefinitionsMoved
from scheduling.models import DeploymentGroup, JournalEntry, Task, TaskGrant, TaskRevision, Team
from tests import factories
from tests.engine.definitions import GOOD, apply, export, forget_everything

pytestmark = pytest.mark.django_db


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


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("flights.yaml", "flights.yaml"),
        ("../etc/flights.yaml", "../etc/flights.yaml"),
        ("{top}/work/teams/flights.yaml", "teams/flights.yaml"),
        ("{top}/etc/flights.yaml", "flights.yaml"),
    ],
)
def test_the_journal_names_a_file_without_where_this_machine_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, named: str
) -> None:
    for folder in ("work/teams", "etc"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    file = given.format(top=tmp_path)
    Path(file).write_text(GOOD)
    apply(file)
    assert set(JournalEntry.objects.values_list("reason", flat=True)) == {f"apply {named}"}


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
    with pytest.raises(DefinitionsMoved, match=r"shown: task extract; nothing was applied\. Run apply again"):
        definitions.apply(wanted, shown)
    extract.refresh_from_db()
    assert extract.revision.priority == 3  # type: ignore[union-attr]


OF_ONE_TEAM = """
team: analytics
groups: [{name: shared}]
tasks: [{name: %(task)s, group: shared, kind: shell, command: 'true', priority: %(priority)d}]
workflows: [{name: %(task)s_daily, schedule: {cron: 0 1 * * *}, nodes: [{key: a, task: %(task)s}]}]
"""


@pytest.mark.parametrize("before", [False, True], ids=["new", "changed"])
def test_only_what_the_files_define_can_conflict(write: Any, before: bool) -> None:
    if before:
        apply(write(OF_ONE_TEAM % {"task": "ours", "priority": 1}))
    wanted = definitions.read_files([write(OF_ONE_TEAM % {"task": "ours", "priority": 2})])
    shown = definitions.plan(wanted)
    # The team and the group are defined by both files, and wanted alike.
    apply(write(OF_ONE_TEAM % {"task": "theirs", "priority": 3}, "theirs.yaml"))

    definitions.apply(wanted, shown)

    found = Task.objects.order_by("name").values_list("name", "revision__priority")
    assert list(found) == [("ours", 2), ("theirs", 3)]


def test_a_thing_that_somebody_made_as_the_files_want_it_is_no_conflict(write: Any) -> None:
    wanted = definitions.read_files([write(GOOD)])
    shown = definitions.plan(wanted)
    apply("flights.yaml")

    assert definitions.apply(wanted, shown).changes_nothing


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
