"""Workflows whose cycles of one o'clock ran, and a rerun of some of them: what tests of reruns begin with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from graphlib import TopologicalSorter
from typing import Any

from reruns import services
from reruns.models import Rerun, RerunItem
from reruns.services import advancing
from tests import factories as make
from tests.engine.cycle_support import commit
from workflows import services as workflow_services
from workflows.models import Cycle, CycleInstance, Workflow
from workflows.services import clock

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOURLY = {"cron": "0 * * * *", "timezone": "UTC", "parallelism": 0, "misfire": "run_all"}


class World:
    """Workflows such as "a > b > c, a > d", each with the nodes `nodes`, whose cycles of 13:00 succeeded.

    `waiting` names those that are left not ready, `running` those that run; what waits for them waits too.
    """

    def __init__(
        self,
        shape: str,
        traveller: Any,
        *,
        nodes: str = "n",
        group: Any = None,
        waiting: str = "",
        running: str = "",
        of_group: dict[str, Any] | None = None,
        **content: Any,
    ) -> None:
        self.group = group or make.group()
        self.traveller = traveller
        self.workflows: dict[str, Workflow] = {}
        traveller.move_to(NOON)
        for name, upstreams in _shape(shape).items():
            place = (of_group or {}).get(name, self.group)
            self.workflows[name] = make.workflow(
                name,
                group=place,
                nodes=nodes,
                starts_at=NOON,
                depends_on=[{"workflow": self._called(each, place)} for each in upstreams],
                **HOURLY | content,
            )
        for workflow in self.workflows.values():
            workflow_services.generate(workflow.pk, NOON)
        self._run(waiting.split(), running.split())

    def _called(self, name: str, group: Any) -> str:
        workflow = self.workflows[name]
        return name if workflow.team_id == group.team_id else f"{workflow.team.name}/{name}"

    def _run(self, waiting: list[str], running: list[str]) -> None:
        for name in waiting:
            workflow_services.freeze(self.at(name), by="setting up")
        self.traveller.move_to(NOON + HOUR)
        clock.make_due()
        for name in self.workflows:
            if self.at(name).state == "running" and name not in running:
                self.end(name)
        for name in waiting:
            # A cycle that has not ended, whatever its upstream says: its time has not come.
            CycleInstance.objects.filter(pk=self.at(name).pk).update(due=False, due_at=NOON + 9 * HOUR)
            workflow_services.unfreeze(self.at(name), by="setting up")

    # --- what there is -----------------------------------------------------------------------------

    def at(self, name: str) -> CycleInstance:
        """The newest instance of a workflow's cycle of 13:00."""
        found = CycleInstance.objects.filter(workflow=self.workflows[name], cycle_time=NOON + HOUR)
        newest = found.exclude(run_type="test").order_by("-number").first()
        assert newest is not None
        return make.fresh(newest)

    def cycle(self, name: str) -> Cycle:
        return Cycle.objects.get(workflow=self.workflows[name], cycle_time=NOON + HOUR)

    def item(self, rerun: Rerun, name: str) -> RerunItem:
        found: RerunItem = rerun.items.get(workflow=self.workflows[name])
        return found

    def states(self, rerun: Rerun) -> dict[str, str]:
        names = {workflow.pk: name for name, workflow in self.workflows.items()}
        items = rerun.items.order_by("pk").values_list("workflow_id", "state")
        return {names[workflow]: state for workflow, state in items}

    def running(self) -> list[str]:
        return [name for name in self.workflows if self.at(name).state == "running"]

    # --- what happens ------------------------------------------------------------------------------

    def end(self, *names: str, outcome: str = "success") -> None:
        """End every running node of the running instances of these, and let happen what follows."""
        for name in names:
            instance = self.at(name)
            assert instance.state == "running", f"{name} is {instance.state}"
            while runs := list(instance.node_runs.running().select_related("batch")):
                make.end_batch(runs[0].batch, outcome)
            assert make.fresh(instance).is_finished
            settle()

    def draft(self, source: str, *names: str, freeze_mode: bool = False, **settings: Any) -> Rerun:
        downstream = [self.at(name) for name in names]
        return services.plan(self.at(source), downstream=downstream, freeze_mode=freeze_mode, **settings)

    def rerun(self, source: str, *names: str, by: Any = None, **settings: Any) -> Rerun:
        """A rerun of these that was submitted, and whatever may begin at once has."""
        draft = self.draft(source, *names, by=by, **settings)
        holes = services.plan_of(draft).holes
        made = services.submit(draft, accepted=holes, by=by, reason="bad weather")
        settle()
        return fresh(made)


def settle() -> None:
    """What the commit and then the scheduler do, until there is nothing more to do."""
    for _round in range(200):
        commit()
        if not advancing.advance_due():
            return
    raise AssertionError("it never settles")


def fresh(rerun: Rerun) -> Rerun:
    return Rerun.objects.get(pk=rerun.pk)


def _shape(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for piece in text.split(","):
        names = [each.strip() for each in piece.split(">")]
        for number, name in enumerate(names):
            upstreams = found.setdefault(name, [])
            if number:
                upstreams.append(names[number - 1])
    return {name: found[name] for name in TopologicalSorter(found).static_order()}
