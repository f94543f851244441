"""Reruns under verbs in any order, on random graphs of workflows, while everything else goes on, with crashes.

What must hold at every moment is in `rerun_picture`; that nothing is generated before its chosen upstreams
succeeded, or twice, and that whatever nobody pauses comes to an end, is seen here.
A long run: `RERUN_EXAMPLES=300 pytest tests/engine/test_rerun_machine.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.core.exceptions import PermissionDenied
from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from reruns import services, transitions
from reruns.errors import HolesNotAccepted, PlanDrifted, RerunRefused
from reruns.models import Rerun
from reruns.services import advancing, following
from reruns.states import RERUN
from scheduling.models import DeploymentGroup, Membership
from tests import factories as make
from tests.engine.cycle_support import commit, everything
from tests.engine.rerun_picture import GENERATED, RerunPicture, killed_after
from workflows import services as workflow_services
from workflows.errors import CycleRefused
from workflows.models import Backfill, CycleInstance, NodeRun, Workflow
from workflows.services import clock
from workflows.states import CYCLE

pytestmark = [pytest.mark.long, pytest.mark.django_db]

EXAMPLES = int(os.environ.get("RERUN_EXAMPLES", 0))
MORNING = datetime(2026, 11, 20, 7, tzinfo=UTC)
SIX_HOURLY = {"cron": "0 */6 * * *", "timezone": "UTC", "misfire": "run_all"}
NAMES = ["a", "b", "c", "d", "e"]

choices = st.data()
kills = st.sampled_from([0, 0, 0, 1, 2, 3, 5, 8])


def cut(after: int) -> Any:
    return killed_after(after) if after else nullcontext()


class AnyOrder(RuleBasedStateMachine):
    """Up to five workflows of two teams, in a transaction that is undone."""

    groups: tuple[DeploymentGroup, DeploymentGroup]
    user: Any

    def __init__(self) -> None:
        super().__init__()
        self.undone = transaction.atomic()
        self.undone.__enter__()
        self.traveller = time_machine.travel(MORNING, tick=False)
        self.clock = self.traveller.start()
        self.by_hand: set[int] = set()
        self.waits_for: dict[int, set[int]] = {}
        self.permitted = True
        self.began_permitted = True
        self.seen = RerunPicture()

    def teardown(self) -> None:
        try:
            if hasattr(self, "workflows"):
                self.everything_ends()
        finally:
            self.traveller.stop()
            transaction.set_rollback(True)
            self.undone.__exit__(None, None, None)

    @initialize(data=choices)
    def some_workflows(self, data: Any) -> None:
        self.workflows: list[Workflow] = []
        for number, name in enumerate(NAMES[: data.draw(st.integers(2, len(NAMES)))]):
            above = data.draw(st.sets(st.sampled_from(NAMES[:number]), max_size=2)) if number else set()
            place = self.groups[data.draw(st.sampled_from([0, 0, 1]))]
            waits = [{"workflow": self.called(each, place)} for each in sorted(above)]
            if data.draw(st.integers(0, 3)) == 0:
                waits.append({"workflow": name, "cycles": "previous"})
            made = make.workflow(
                name,
                group=place,
                nodes=data.draw(st.sampled_from(["x", "x > y", "x, y"])),
                starts_at=MORNING - timedelta(days=1),
                parallelism=data.draw(st.sampled_from([0, 0, 1, 2])),
                depends_on=waits,
                **SIX_HOURLY,
            )
            self.workflows.append(made)
        for _cycle in range(2):
            self.clock.shift(timedelta(hours=6))
            clock.make_due()
            for _round in range(data.draw(st.integers(2, 8))):
                self.nodes_end(data, 9)
                commit()
        self.plan(data, CycleInstance.objects.filter(started_at__isnull=False), everything=True)

    def called(self, name: str, group: DeploymentGroup) -> str:
        workflow = next(each for each in self.workflows if each.name == name)
        return name if workflow.team_id == group.team_id else f"{workflow.team.name}/{name}"

    # --- what nodes do ---------------------------------------------------------------------------

    @rule(data=choices, outcome=st.sampled_from(["success", "success", "failed", "terminated"]))
    def a_node_ends(self, data: Any, outcome: str) -> None:
        running = list(NodeRun.objects.running().order_by("pk").select_related("batch"))
        if running:
            make.end_batch(data.draw(st.sampled_from(running)).batch, outcome)

    def nodes_end(self, data: Any, successes: int) -> None:
        """Of the running nodes some end, one in so many not as a success."""
        for run in NodeRun.objects.running().order_by("pk").select_related("batch"):
            if data.draw(st.integers(0, 3)):
                make.end_batch(run.batch, data.draw(st.sampled_from(["success"] * successes + ["failed"])))

    @rule(data=choices, successes=st.integers(1, 6))
    def nodes_end_and_the_scheduler_sees_it(self, data: Any, successes: int) -> None:
        self.nodes_end(data, successes)
        commit()
        advancing.advance_due()

    @rule(data=choices)
    def nodes_end_and_nobody_sees_it(self, data: Any) -> None:
        self.nodes_end(data, 3)

    # --- what people do to cycles ----------------------------------------------------------------

    def an_instance(self, data: Any, *states: str) -> CycleInstance | None:
        found = CycleInstance.objects.filter(state__in=states or CYCLE.states.values)
        due = found.exclude(state="not_ready") | found.filter(
            cycle_time__lte=datetime.now(UTC) + timedelta(hours=7)
        )
        pks = list(due.order_by("pk").values_list("pk", flat=True))
        return CycleInstance.objects.get(pk=data.draw(st.sampled_from(pks))) if pks else None

    def by_a_person(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except (CycleRefused, RerunRefused, PermissionDenied):
            return None

    @rule(data=choices, verb=st.sampled_from(["stop", "mark_success", "freeze", "unfreeze"]))
    def somebody_acts_by_hand(self, data: Any, verb: str) -> None:
        states = {
            "stop": ("not_ready", "ready", "running"),
            "mark_success": ("failed", "terminated"),
        }.get(verb, ("not_ready", "ready"))
        instance = self.an_instance(data, *states)
        if instance is not None:
            act = getattr(workflow_services, verb)
            self.by_a_person(lambda: act(instance, by="ann", reason="seen"))

    @rule(data=choices)
    def somebody_reruns_by_hand(self, data: Any) -> None:
        source = self.an_instance(data, "success", "failed", "terminated")
        if source is not None:
            again = self.by_a_person(lambda: workflow_services.rerun(source, by="ann"))
            self.by_hand |= {again.pk} if again else set()

    @rule(data=choices, waits=st.booleans())
    def backfill(self, data: Any, waits: bool) -> None:
        until = datetime.now(UTC)
        workflow = data.draw(st.sampled_from(self.workflows))
        made = self.by_a_person(
            lambda: workflow_services.backfill(
                workflow, since=until - timedelta(hours=7), until=until, waits_for_upstream=waits, by="ann"
            )
        )
        if made is not None:
            self.by_hand |= set(made.instances.values_list("pk", flat=True))

    @rule(data=choices, right=st.booleans())
    def a_workflow_is_switched_or_a_right_taken_away_or_given_back(self, data: Any, right: bool) -> None:
        if not right:
            workflow = Workflow.objects.get(pk=data.draw(st.sampled_from(self.workflows)).pk)
            workflow_services.set_enabled(workflow, not workflow.enabled, by="ann")
            return
        self.permitted = not self.permitted
        membership = Membership.objects.filter(team=self.groups[1].team, user=self.user)
        membership.update(role="operator" if self.permitted else "viewer")

    # --- what people do to reruns ----------------------------------------------------------------

    def asker(self, data: Any) -> Any:
        return data.draw(st.sampled_from([None, type(self.user).objects.get(pk=self.user.pk)]))

    @rule(data=choices, at_once=st.sampled_from([True, True, False]))
    def somebody_plans(self, data: Any, at_once: bool) -> None:
        self.plan(data, CycleInstance.objects.exclude(state="not_ready"), at_once=at_once)

    def plan(self, data: Any, sources: Any, *, everything: bool = False, at_once: bool = True) -> None:
        """A rerun of one of `sources` with some or all of what is downstream of it, perhaps only a draft."""
        pks = list(sources.order_by("pk").values_list("pk", flat=True))
        if not pks:
            return
        source = CycleInstance.objects.get(pk=pks[0] if everything else data.draw(st.sampled_from(pks)))
        by = self.asker(data)
        draft = self.by_a_person(
            lambda: services.plan(
                source,
                freeze_mode=data.draw(st.sampled_from([True, True, False])),
                parallelism=data.draw(st.sampled_from([0, 0, 1, 2])),
                on_failure=data.draw(st.sampled_from(["go_on", "go_on", "stop"])),
                by=by,
            )
        )
        if draft is None:
            return
        able = [each for each in services.plan_of(draft, user=by).candidates if not each.refusal]
        cycles = [each.cycle_id for each in able if not each.is_source]
        wanted = set(cycles) if everything or not cycles else data.draw(self.some_of(cycles))
        services.choose(draft, sorted(wanted), by=by)
        if at_once:
            self.submit(draft, by)

    @staticmethod
    def some_of(cycles: list[int]) -> Any:
        return st.sets(st.sampled_from(cycles), min_size=1) | st.just(set(cycles))

    @rule(data=choices)
    def somebody_submits(self, data: Any) -> None:
        drafts = list(Rerun.objects.filter(state="draft").order_by("pk"))
        if drafts:
            draft = data.draw(st.sampled_from(drafts))
            self.submit(draft, self.asker(data) if draft.requested_by_id else None)

    def submit(self, draft: Rerun, by: Any) -> None:
        before = RerunPicture()
        try:
            self.confirmed(draft, by)
        except RerunRefused:
            assert before.reruns == RerunPicture().reruns
            return
        self.remember(draft)

    @staticmethod
    def confirmed(draft: Rerun, by: Any) -> None:
        """Submit with whatever has to be confirmed and accepted."""
        known: dict[str, Any] = {}
        for _question in range(3):
            try:
                services.submit(draft, by=by, reason="bad weather", **known)
                return
            except PlanDrifted as drifted:
                known["confirmed"] = drifted.drift
            except HolesNotAccepted as refused:
                known["accepted"] = refused.holes
        raise AssertionError("it never knows enough")

    def remember(self, rerun: Rerun) -> None:
        """What each item has to wait for, by the graph of cycles itself."""
        picture = RerunPicture()
        runs = {
            each["cycle_id"]: pk
            for pk, each in picture.items.items()
            if each["rerun_id"] == rerun.pk and each["action"] != "freeze"
        }
        for cycle, item in runs.items():
            self.waits_for[item] = {runs[each] for each in picture.ancestors(cycle) & runs.keys()} - {item}

    @precondition(lambda self: any(each["state"] != "draft" for each in self.seen.reruns.values()))
    @rule(data=choices, verb=st.sampled_from(["pause", "resume", "resume", "terminate"]), kill=kills)
    def somebody_operates(self, data: Any, verb: str, kill: int) -> None:
        found = data.draw(st.sampled_from(list(Rerun.objects.exclude(state="draft").order_by("pk"))))
        by = self.asker(data) if verb == "resume" else None
        with cut(kill):
            self.by_a_person(lambda: getattr(services, verb)(found, by=by))

    @precondition(lambda self: any(each["state"] in {"waiting", "frozen"} for each in self.seen.items.values()))
    @rule(data=choices, kill=kills)
    def somebody_takes_out(self, data: Any, kill: int) -> None:
        reruns = Rerun.objects.filter(items__state__in=["waiting", "frozen"]).distinct().order_by("pk")
        found = data.draw(st.sampled_from(list(reruns)))
        items = list(found.items.filter(state__in=["waiting", "frozen"]).order_by("pk"))
        chosen = data.draw(
            st.lists(st.sampled_from(items), min_size=1, max_size=3, unique_by=lambda each: each.pk)
        )
        with cut(kill):
            self.by_a_person(lambda: services.take_out(found, chosen))

    # --- what time, schedulers and crashes do ----------------------------------------------------

    @rule(hours=st.integers(1, 7))
    def time_passes(self, hours: int) -> None:
        self.clock.shift(timedelta(hours=hours))
        clock.make_due()

    @rule(step=st.sampled_from(["generate_due", "make_overlooked_ready", "carry_on"]), killed=st.booleans())
    def a_scheduler_looks_at_cycles(self, step: str, killed: bool) -> None:
        getattr(clock, step)()
        commit(killed=killed)
        assert services.free_stranded() == []

    @rule(kill=kills, step=st.sampled_from(["advance_due", "advance_due", "carry_on"]))
    def a_scheduler_advances(self, kill: int, step: str) -> None:
        with cut(kill):
            getattr(advancing, step)()

    @rule()
    def a_scheduler_is_killed_before_it_did_anything(self) -> None:
        for rerun in Rerun.objects.filter(due=True):
            transitions.answer(rerun.pk)

    @rule(data=choices)
    def an_end_is_told_again(self, data: Any) -> None:
        instance = self.an_instance(data, *CYCLE.final)
        if instance is not None:
            before = everything(), RerunPicture().items
            following.cycle_ended(instance.pk, instance.cycle_id)
            assert (everything(), RerunPicture().items) == before

    # --- what must hold --------------------------------------------------------------------------

    @invariant()
    def everything_agrees(self) -> None:
        if not hasattr(self, "workflows"):
            return
        before, now = self.seen, RerunPicture()
        now.check()
        for pk, item in now.items.items():
            self.became(before.items.get(pk), item, before, now)
        for pk, rerun in now.reruns.items():
            self.keeps_its_limit(rerun, now.of[pk])
            if before.reruns.get(pk, {}).get("state") in RERUN.final:
                assert now.of[pk] == before.of[pk], "the record changed"
        self.seen, self.began_permitted = now, self.permitted

    def became(
        self, was: dict[str, Any] | None, item: dict[str, Any], before: RerunPicture, now: RerunPicture
    ) -> None:
        if item["state"] in GENERATED and item["action"] != "freeze":
            above = {now.items[each]["state"] for each in self.waits_for[item["id"]]}
            assert above <= {"success", "cancelled"}, (item, "was generated too early")
        fresh = item["instance_id"]
        if was is None or fresh == was["instance_id"] or fresh in self.by_hand:
            return
        # The rerun itself generated it.
        rerun = before.reruns[item["rerun_id"]]
        assert rerun["state"] != "paused" or now.reruns[item["rerun_id"]]["state"] != "paused"
        earlier = now.instances.get(was["instance_id"])
        if earlier is not None:
            marked = earlier["reason"].startswith("Marked as a success")
            assert earlier["state"] in {"failed", "terminated"} or marked, (item, "ran twice")
        if not self.permitted and not self.began_permitted and now.reruns[item["rerun_id"]]["responsible_id"]:
            assert item["team_id"] != self.groups[1].team_id, (item, "nobody may")

    def keeps_its_limit(self, rerun: dict[str, Any], items: list[dict[str, Any]]) -> None:
        running = [
            each for each in items if each["state"] == "running" and each["instance_id"] not in self.by_hand
        ]
        assert not rerun["parallelism"] or len(running) <= rerun["parallelism"]

    # --- at last ---------------------------------------------------------------------------------

    def everything_ends(self) -> None:
        """What nobody pauses ends, or fails and can be resumed to its end, and then nothing is kept."""
        Membership.objects.filter(user=self.user).update(role="operator")
        self.permitted = True
        for workflow in Workflow.objects.filter(enabled=False):
            workflow_services.set_enabled(workflow, True, by="ann")
        for found in Backfill.objects.filter(state="paused"):
            workflow_services.resume_backfill(found, by="ann")
        for frozen in CycleInstance.objects.filter(frozen_at__isnull=False, holder=""):
            workflow_services.unfreeze(frozen, by="ann")
        for _round in range(2):
            self.settle()
            for rerun in Rerun.objects.filter(state__in=["paused", "failed"]):
                services.resume(rerun)
        self.settle()
        assert set(Rerun.objects.values_list("state", flat=True)) <= {"draft", "success", "terminated"}
        picture = RerunPicture()
        picture.check()
        picture.check_nothing_overlooked()
        assert not any(each["holder"] for each in picture.cycles.values())
        assert not any(each["holder"] for each in picture.instances.values())

    def settle(self) -> None:
        """Every job succeeds, and the scheduler does all there is to do."""
        for _round in range(400):
            commit(killed=True)
            moved = advancing.carry_on() + clock.carry_on() + clock.make_overlooked_ready()
            running = list(NodeRun.objects.running().order_by("pk").select_related("batch"))
            for run in running:
                make.end_batch(run.batch)
            if not moved and not running:
                break
        else:
            raise AssertionError("it never settles")
        self.everything_agrees()
        assert not Rerun.objects.filter(state__in=["running", "terminating"]).exists()


def test_verbs_in_any_order_keep_reruns_and_cycles_in_agreement() -> None:
    first, second = make.group(team=make.team("one")), make.group(team=make.team("two"))
    for group in (first, second):
        for name in ("x", "y"):
            make.task(name, group=group)
    AnyOrder.groups = (first, second)
    AnyOrder.user = make.user("mei", team=first.team)
    Membership.objects.create(team=second.team, user=AnyOrder.user, role="operator")
    run_state_machine_as_test(
        AnyOrder,
        settings=settings(
            max_examples=EXAMPLES or 6,
            stateful_step_count=30 if EXAMPLES else 12,
            derandomize=not EXAMPLES,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
