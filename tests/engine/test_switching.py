"""Ways to switch × kinds of triggers × switches shorter and longer than the interval × misfire policies.

All triggers come hourly, at the full hour. A switch takes away the schedule, and due times are missed at once;
or the scheduler, and they are missed after the grace; or nothing of the trigger.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from scheduling import definitions, services
from scheduling.definitions.reading import read
from scheduling.engine import triggers
from scheduling.models import DeploymentGroup, Node, Task
from tests import factories as make
from tests.engine.rerun_world import NOON
from workflows import services as workflow_services
from workflows.models import CycleInstance, Workflow
from workflows.services import clock

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("noon")]

MINUTE = timedelta(minutes=1)
SCHEDULES = {"cron": {"cron": "0 * * * *", "timezone": "UTC"}, "fixed_rate": {"interval": 3600}}
HOURLY = {"cron": "0 * * * *", "timezone": "UTC", "parallelism": 0}
POLICIES = ("skip", "run_once", "run_all")


@dataclass
class World:
    """A task or a workflow that is due every hour from 13:00 on, and a clock."""

    kind: str
    policy: str
    traveller: Any
    scheduler: bool = True

    def __post_init__(self) -> None:
        self.group = make.group("etl")
        self.node = make.node(group=self.group)
        if self.kind == "workflow":
            make.workflow("it", group=self.group, misfire=self.policy, **HOURLY)
        else:
            make.task("it", group=self.group, misfire=self.policy, **SCHEDULES[self.kind])

    @property
    def task(self) -> Task:
        return Task.objects.get(name="it" if self.kind != "workflow" else "a")

    @property
    def workflow(self) -> Workflow:
        return Workflow.objects.get(name="it")

    def until(self, at: datetime) -> None:
        """Let the time pass as a scheduler sees it: it looks at every full minute and at `at`."""
        while (now := timezone.now()) < at:
            self.traveller.move_to(min(now.replace(second=0) + MINUTE, at))
            self.look()

    def look(self) -> None:
        if not self.scheduler:
            return
        while triggers.fire_due():
            pass
        clock.generate_due()
        while clock.make_due():
            pass

    def fired(self) -> list[str]:
        """The due times that ran, in order."""
        if self.kind == "workflow":
            begun = CycleInstance.objects.exclude(state__in=["not_ready", "cancelled"])
            found = begun.order_by("cycle_time").values_list("cycle_time", flat=True)
        else:
            found = self.task.batches.order_by("scheduled_for").values_list("scheduled_for", flat=True)
        return [f"{each:%H}" for each in found]


# --- the ways to switch ------------------------------------------------------------------------------


def _task(world: World, on: bool) -> None:
    services.set_enabled(world.task, on, by="ann")


def _group(world: World, on: bool) -> None:
    (services.enable_group if on else services.disable_group)(world.group, by="ann")


def _workflow(world: World, on: bool) -> None:
    workflow_services.set_enabled(world.workflow, on, by="ann")


def _apply(world: World, on: bool) -> None:
    _apply_text(world, f"enabled: {str(on).lower()}, ")


def _apply_text(world: World, more: str) -> None:
    """Apply the definition of what is due with `more` in it."""
    named = f"misfire: {world.policy}, {more}"
    if world.kind == "workflow":
        schedule = "schedule: {cron: 0 * * * *, timezone: UTC}, parallelism: 0"
        listed = f"workflows: [{{name: it, {named}{schedule}, nodes: [{{key: a, task: a}}]}}]"
    else:
        trigger = "{cron: 0 * * * *}" if world.kind == "cron" else "{every: 1h}"
        listed = f"tasks: [{{name: it, group: etl, kind: shell, command: 'true', {named}trigger: {trigger}}}]"
    documents, mistakes = read("it.yaml", f"team: {world.group.team.name}\n{listed}\n".encode())
    definitions.apply(definitions.check(documents, mistakes))


def _node_drained(world: World, on: bool) -> None:
    (services.undrain if on else services.drain)(Node.objects.get(pk=world.node.pk), by="ann")


def _node_gone(world: World, on: bool) -> None:
    Node.objects.filter(pk=world.node.pk).update(state="online" if on else "offline")


def _scheduler(world: World, on: bool) -> None:
    world.scheduler = on
    world.look()


def _edit(world: World, on: bool) -> None:
    """Edit what is no part of its schedule: who is told, how long it may take, and its team's other task."""
    _apply_text(world, "timeout: 20m, retention: 3d, " if on else "timeout: 10m, ")


def _edit_of_another(world: World, on: bool) -> None:
    make.task("another", group=DeploymentGroup.objects.get(pk=world.group.pk), interval=60 if on else 120)


WAYS: dict[Callable[[World, bool], None], str] = {
    _task: "schedule",
    _group: "schedule",
    _workflow: "schedule",
    _apply: "schedule",
    _scheduler: "scheduler",
    _node_drained: "nothing",
    _node_gone: "nothing",
    _edit: "nothing",
    _edit_of_another: "nothing",
}


def ways_and_kinds() -> list[Any]:
    """A way, a kind of trigger, and what of the trigger the way takes away."""
    found = []
    for way, takes in WAYS.items():
        for kind in (*SCHEDULES, "workflow"):
            name = way.__name__.removeprefix("_")
            # A workflow's schedule is no matter of the switches of its tasks, nor the other way round.
            own = {"_task": "task", "_group": "task", "_workflow": "workflow"}.get(way.__name__)
            of_other = own is not None and own != ("workflow" if kind == "workflow" else "task")
            if of_other and kind != "workflow":
                continue
            found.append(pytest.param(way, kind, "nothing" if of_other else takes, id=f"{name}-{kind}"))
    return found


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("way", "kind", "takes"), ways_and_kinds())
def test_switches_between_due_times_change_nothing_however_often(
    noon: Any, way: Callable[[World, bool], None], kind: str, takes: str, policy: str
) -> None:
    world = World(kind, policy, noon)
    for hour in range(4):
        for off in (5, 25, 45):
            begin = NOON + hour * 60 * MINUTE + off * MINUTE
            world.until(begin)
            way(world, False)
            world.until(begin + 10 * MINUTE)
            way(world, True)
        world.until(NOON + (hour + 1) * 60 * MINUTE)
    assert world.fired() == ["13", "14", "15", "16"]


EXPECTED = {
    # What is off misses its due times at once.
    ("schedule", "over an hour"): {"skip": "16", "run_once": "15 16", "run_all": "13 14 15 16"},
    ("schedule", "over a minute"): {"skip": "14 15 16", "run_once": "13 14 15 16", "run_all": "13 14 15 16"},
    # A scheduler that comes back within the grace is late, and misses nothing.
    ("scheduler", "over an hour"): {"skip": "16", "run_once": "15 16", "run_all": "13 14 15 16"},
    ("scheduler", "over a minute"): dict.fromkeys(POLICIES, "13 14 15 16"),
    ("nothing", "over an hour"): dict.fromkeys(POLICIES, "13 14 15 16"),
    ("nothing", "over a minute"): dict.fromkeys(POLICIES, "13 14 15 16"),
}
SWITCHES = {
    "over an hour": (NOON + 30 * MINUTE, NOON + 210 * MINUTE),
    "over a minute": (NOON + 59.5 * MINUTE, NOON + 60.5 * MINUTE),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("how_long", SWITCHES)
@pytest.mark.parametrize(("way", "kind", "takes"), ways_and_kinds())
def test_due_times_that_pass_meanwhile_obey_the_misfire_policy(
    noon: Any, way: Callable[[World, bool], None], kind: str, takes: str, policy: str, how_long: str
) -> None:
    world = World(kind, policy, noon)
    off, on = SWITCHES[how_long]
    world.until(off)
    way(world, False)
    world.until(on)
    way(world, True)
    world.look()
    world.until(NOON + 245 * MINUTE)
    assert world.fired() == EXPECTED[takes, how_long][policy].split()


# --- which cycles are dropped, and why ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "policy", "why"),
    [
        (_workflow, "skip", "Missed while the workflow was switched off; its misfire policy is to skip"),
        (
            _workflow,
            "run_once",
            "Missed while the workflow was switched off; its misfire policy is to run once",
        ),
        (_scheduler, "skip", "No scheduler made it due within 60 s of its time; the misfire policy is to skip"),
        (
            _scheduler,
            "run_once",
            "No scheduler made it due within 60 s of its time; the misfire policy is to run once",
        ),
    ],
)
def test_a_dropped_cycle_says_why_it_was_missed(
    noon: Any, settings: Any, way: Callable[[World, bool], None], policy: str, why: str
) -> None:
    settings.TAILRACE = settings.TAILRACE | {"MISFIRE_GRACE": 60}
    world = World("workflow", policy, noon)
    off, on = SWITCHES["over an hour"]
    world.until(off)
    way(world, False)
    world.until(on)
    way(world, True)
    dropped = CycleInstance.objects.filter(state="cancelled").order_by("cycle_time")
    assert [f"{each.cycle_time:%H}" for each in dropped] == ["13", "14", "15"][: 3 if policy == "skip" else 2]
    assert {each.reason for each in dropped} == {why}


@pytest.mark.parametrize("policy", ["skip", "run_once"])
@pytest.mark.parametrize("way", [_workflow, _scheduler])
def test_a_frozen_cycle_outlives_its_misfire_and_runs_when_unfrozen(
    noon: Any, way: Callable[[World, bool], None], policy: str
) -> None:
    world = World("workflow", policy, noon)
    world.until(NOON + 30 * MINUTE)
    way(world, False)
    held = CycleInstance.objects.get(cycle_time=NOON + 60 * MINUTE)
    workflow_services.freeze(held, by="ann", reason="bad weather")
    world.until(NOON + 210 * MINUTE)
    way(world, True)
    world.look()
    latest = ["15"] if policy == "run_once" else []
    assert world.fired() == latest
    held.refresh_from_db()
    assert (held.state, held.frozen_by) == ("not_ready", "ann")

    workflow_services.unfreeze(held, by="ann")
    world.look()
    assert world.fired() == ["13", *latest], "14:00 was dropped, the frozen cycle was kept"
