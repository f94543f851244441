"""Row E5: with "content as it is now" exactly the content of the submit runs; an edit afterwards is drift."""

from __future__ import annotations

from typing import Any

import pytest

from reruns import content, services
from reruns.errors import RerunRefused
from scheduling.models import JournalEntry
from tests import factories as make
from tests.engine.rerun_world import HOURLY, NOON, World, fresh, settle
from workflows.models import Workflow

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("noon")]


def test_the_content_of_the_submit_runs_and_a_later_one_only_when_it_is_taken(noon: Any) -> None:
    world = World("a > b > c", noon, nodes="x")
    rerun = world.rerun("a", "b", "c", as_it_ran=False)
    assert content.edits_of(rerun) == []
    before = {name: world.workflows[name].revision_id for name in "bc"}
    for name, upstream in (("b", "a"), ("c", "b")):
        edited = {"group": world.group, "nodes": "x > z", "depends_on": [{"workflow": upstream}]}
        make.workflow(name, **edited, starts_at=NOON, **HOURLY)
    assert [(each.workflow, each.task, each.instances) for each in content.edits_of(rerun)] == [
        ("b", "", 1),
        ("c", "", 1),
    ]
    world.end("a")
    assert (world.at("b").revision_id, world.running()) == (before["b"], ["b"])

    services.take_content(rerun, by="ann", reason="z was missing")
    assert content.edits_of(fresh(rerun)) == []
    world.end("b")
    assert world.at("c").revision_id == Workflow.objects.get(name="c").revision_id != before["c"]
    world.end("c")
    entry = JournalEntry.objects.get(object_type="rerun", action="content_taken")
    assert (entry.actor, entry.reason, entry.details) == ("ann", "z was missing", {"edited": "c"})
    assert fresh(rerun).state == "success"


def test_the_task_of_the_submit_runs_after_an_edit(noon: Any) -> None:
    world = World("a > b", noon, nodes="n")
    rerun = world.rerun("a", "b", as_it_ran=False)
    task = world.at("b").revision.nodes.get().task
    before = task.revision_id
    make.task(task.name, group=world.group, spec={"command": "false"})
    world.end("a")
    batch = world.at("b").node_runs.get().batch
    assert batch is not None
    task.refresh_from_db()
    assert batch.revision_id == before != task.revision_id
    assert content.edits_of(fresh(rerun)) == [], "b was generated"


def test_a_content_without_a_chosen_node_cannot_be_taken(noon: Any) -> None:
    world = World("a > b", noon, nodes="x > y")
    draft = world.draft("a", "b", as_it_ran=False)
    services.choose_nodes(draft, world.cycle("b").pk, ["y"])
    rerun = services.submit(draft)
    settle()
    make.workflow(
        "b", group=world.group, nodes="x > z", depends_on=[{"workflow": "a"}], starts_at=NOON, **HOURLY
    )
    with pytest.raises(RerunRefused, match="b 2026-11-20 13:00 UTC has no node y in its current content"):
        services.take_content(rerun, by="ann")
    world.end("a")
    assert world.running() == ["b"]
