"""Workflows under verbs in any order: random DAGs and outcomes, stops, reruns, freezes, backfills, crashes.

A long run: `CYCLE_EXAMPLES=500 pytest tests/engine/test_cycle_machine.py`.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
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

from scheduling import services as scheduling
from scheduling.errors import TransitionRefused
from scheduling.models import Batch, DeploymentGroup
from tests import factories as make
from tests.engine.cycle_support import Picture, commit, everything, traceless
from workflows import services, transitions
from workflows.errors import CycleRefused
from workflows.models import Backfill, Cycle, CycleInstance, NodeRun, Workflow
from workflows.services import clock
from workflows.states import CYCLE, NODE_RUN

pytestmark = [pytest.mark.long, pytest.mark.django_db]

EXAMPLES = int(os.environ.get("CYCLE_EXAMPLES", 0))
MORNING = datetime(2026, 11, 20, 7, tzinfo=UTC)
TASKS = ["a", "b", "c", "d", "e"]
SIX_HOURLY = {"cron": "0 */6 * * *", "timezone": "UTC", "misfire": "run_all"}

choices = st.data()


@st.composite
def nodes(draw: st.DrawFn) -> list[dict[str, Any]]:
    """The nodes of a small DAG; one of its tasks may be a broadcast that no node is online for."""
    made = []
    for number in range(draw(st.integers(1, len(TASKS)))):
        sources = draw(st.sets(st.sampled_from(TASKS[:number]), max_size=3)) if number else set()
        conditions = st.sampled_from(["success", "success", "failure", "always"])
        made.append(
            {
                "key": TASKS[number],
                "task": draw(st.sampled_from([*([TASKS[number]] * 4), "everywhere"])),
                "core": draw(st.sampled_from([True, True, True, False])),
                "join": draw(st.sampled_from(["all", "all", "any"])),
                "after": [{"node": each, "on": draw(conditions)} for each in sorted(sources)],
            }
        )
    return made


class AnyOrder(RuleBasedStateMachine):
    """Two workflows, the second of which waits for the first, in a transaction that is undone."""

    group: DeploymentGroup

    def __init__(self) -> None:
        super().__init__()
        self.undone = transaction.atomic()
        self.undone.__enter__()
        self.traveller = time_machine.travel(MORNING, tick=False)
        self.clock = self.traveller.start()
        self.batches: dict[int, int] = {}
        self.ended: dict[int, dict[int, dict[str, Any]]] = {}
        self.seen = Picture()

    def teardown(self) -> None:
        try:
            if hasattr(self, "upstream"):
                self.everything_ends()
        finally:
            self.traveller.stop()
            transaction.set_rollback(True)
            self.undone.__exit__(None, None, None)

    @initialize(above=nodes(), below=nodes(), limits=st.tuples(*[st.integers(0, 2)] * 2), alone=st.booleans())
    def two_workflows(self, above: Any, below: Any, limits: tuple[int, int], alone: bool) -> None:
        self.upstream = self.workflow("up", above, parallelism=limits[0])
        waits_for = [{"workflow": "up", "cycles": "same"}]
        if alone:
            waits_for.append({"workflow": "down", "cycles": "previous"})
        self.downstream = self.workflow("down", below, parallelism=limits[1], depends_on=waits_for)
        self.clock.shift(timedelta(hours=5))
        clock.make_due()

    def workflow(self, name: str, nodes: Any, **content: Any) -> Workflow:
        return make.workflow(
            name, group=self.group, nodes=nodes, starts_at=MORNING - timedelta(days=1), **SIX_HOURLY, **content
        )

    # --- choosing --------------------------------------------------------------------------------

    def an_instance(self, data: Any, *states: str) -> CycleInstance | None:
        found = CycleInstance.objects.filter(state__in=states) if states else CycleInstance.objects.all()
        pks = list(found.order_by("pk").values_list("pk", flat=True))
        return CycleInstance.objects.get(pk=data.draw(st.sampled_from(pks))) if pks else None

    def a_run(self, data: Any) -> NodeRun | None:
        running = NodeRun.objects.running().order_by("pk").select_related("batch")
        return data.draw(st.sampled_from(list(running))) if running else None

    # --- what nodes do ---------------------------------------------------------------------------

    @rule(data=choices, outcome=st.sampled_from(["success", "success", "success", "failed", "timed_out"]))
    def a_node_ends(self, data: Any, outcome: str) -> None:
        run = self.a_run(data)
        if run is not None:
            make.end_batch(run.batch, outcome)

    @rule(data=choices)
    def most_nodes_end(self, data: Any) -> None:
        for run in NodeRun.objects.running().select_related("batch"):
            if data.draw(st.integers(0, 3)):
                make.end_batch(run.batch)

    @rule(data=choices)
    def a_batch_is_stopped(self, data: Any) -> None:
        run = self.a_run(data)
        if run is not None:
            traceless(lambda: scheduling.stop(run.batch, by="ann"), TransitionRefused)

    @rule(data=choices)
    def an_end_is_told_again(self, data: Any) -> None:
        batches = list(Batch.objects.filter(trigger="workflow").order_by("pk").values_list("pk", flat=True))
        if batches:
            told = data.draw(st.sampled_from(batches))
            before = everything()
            if Batch.objects.get(pk=told).is_finished:
                transitions.batch_ended(told)
            assert everything() == before

    # --- what people do --------------------------------------------------------------------------

    @rule(data=choices)
    def stop(self, data: Any) -> None:
        instance = self.an_instance(data)
        if instance is not None:
            traceless(lambda: services.stop(instance, by="ann", reason="enough"), CycleRefused)

    @rule(data=choices, limit=st.integers(0, 2), stop_on_failure=st.booleans(), as_it_ran=st.booleans())
    def rerun(self, data: Any, limit: int, stop_on_failure: bool, as_it_ran: bool) -> None:
        source = self.an_instance(data, "success", "failed", "terminated") or self.an_instance(data)
        if source is None:
            return
        keys = [node.key for node in source.revision.nodes.all()]
        chosen = data.draw(st.none() | st.sets(st.sampled_from(keys), min_size=1))
        holder = data.draw(st.sampled_from(["", "rerun:1"]))
        before = Picture()
        again = traceless(
            lambda: services.rerun(
                source,
                nodes=chosen,
                as_it_ran=as_it_ran,
                node_parallelism=limit,
                stop_on_failure=stop_on_failure,
                holder=holder,
                by="ann",
            ),
            CycleRefused,
        )
        if again is not None:
            self.only_what_was_chosen(before.runs[source.pk], again, chosen)

    def only_what_was_chosen(
        self, source: dict[int, Any], again: CycleInstance, chosen: set[str] | None
    ) -> None:
        kept = ("state", "batch_id", "result", "started_at", "ended_at", "reason")
        for run in again.node_runs.select_related("node"):
            before = source.get(run.node_id)
            if run.carried:
                assert before is not None
                assert chosen is None or run.node.key not in chosen
                assert {name: before[name] for name in kept} == {name: getattr(run, name) for name in kept}
            else:
                assert chosen is None or run.node.key in chosen or before is None

    @rule(data=choices)
    def mark_success(self, data: Any) -> None:
        instance = self.an_instance(data, "failed", "terminated") or self.an_instance(data)
        if instance is not None:
            traceless(lambda: services.mark_success(instance, by="ann", reason="seen"), CycleRefused)

    @rule(data=choices, holder=st.sampled_from(["", "rerun:1"]))
    def freeze(self, data: Any, holder: str) -> None:
        instance = self.an_instance(data)
        if instance is not None:
            traceless(lambda: services.freeze(instance, by="ann", reason="", holder=holder), CycleRefused)

    @rule(data=choices, holder=st.sampled_from(["", "rerun:1"]))
    def unfreeze(self, data: Any, holder: str) -> None:
        frozen = list(CycleInstance.objects.filter(frozen_at__isnull=False).order_by("pk"))
        if frozen:
            instance = data.draw(st.sampled_from(frozen))
            traceless(lambda: services.unfreeze(instance, by="ann", holder=holder), CycleRefused)

    @rule(data=choices, holder=st.sampled_from(["rerun:1", "rerun:2"]), lets_go=st.booleans())
    def hold(self, data: Any, holder: str, lets_go: bool) -> None:
        cycles = list(Cycle.objects.order_by("pk"))
        if not cycles:
            return
        cycle = data.draw(st.sampled_from(cycles))
        with transaction.atomic():
            Workflow.objects.locked([cycle.workflow_id])
            if lets_go:
                again = transitions.release_cycles([cycle.pk], holder)
            else:
                again = set()
                traceless(lambda: transitions.hold_cycles([cycle.pk], holder), CycleRefused)
        transitions.look_again(again)

    @rule(which=st.booleans())
    def run_a_test(self, which: bool) -> None:
        services.run_test(self.upstream if which else self.downstream, by="ann")

    @rule(which=st.booleans())
    def switch(self, which: bool) -> None:
        workflow = Workflow.objects.get(pk=(self.upstream if which else self.downstream).pk)
        services.set_enabled(workflow, not workflow.enabled, by="ann")

    # --- backfills -------------------------------------------------------------------------------

    @rule(
        which=st.booleans(),
        hours=st.tuples(st.integers(0, 24), st.integers(0, 24)),
        order=st.sampled_from(["oldest_first", "newest_first"]),
        parallelism=st.integers(1, 3),
        waits=st.booleans(),
        pauses=st.booleans(),
    )
    def backfill(
        self, which: bool, hours: tuple[int, int], order: str, parallelism: int, waits: bool, pauses: bool
    ) -> None:
        now = datetime.now(UTC)
        until, since = sorted(now - timedelta(hours=each) for each in hours)[::-1]
        traceless(
            lambda: services.backfill(
                self.upstream if which else self.downstream,
                since=since,
                until=until,
                order=order,
                parallelism=parallelism,
                waits_for_upstream=waits,
                pause_on_failure=pauses,
                by="ann",
            ),
            CycleRefused,
        )

    @precondition(lambda self: self.seen.backfills)
    @rule(data=choices, verb=st.sampled_from(["pause_backfill", "resume_backfill", "terminate_backfill"]))
    def change_a_backfill(self, data: Any, verb: str) -> None:
        found = data.draw(st.sampled_from(list(Backfill.objects.order_by("pk"))))
        traceless(lambda: getattr(services, verb)(found, by="ann"), CycleRefused)

    # --- what time and schedulers do -------------------------------------------------------------

    @rule(hours=st.integers(1, 7))
    def time_passes(self, hours: int) -> None:
        self.clock.shift(timedelta(hours=hours))
        clock.make_due()

    @rule(step=st.sampled_from(["generate_due", "make_due", "make_overlooked_ready", "carry_on"]))
    def a_scheduler_looks(self, step: str) -> None:
        getattr(clock, step)()

    @rule()
    def a_process_is_killed_after_its_commit(self) -> None:
        commit(killed=True)

    @rule()
    def what_was_to_follow_the_commit_does(self) -> None:
        commit()

    # --- what must hold --------------------------------------------------------------------------

    @invariant()
    def everything_agrees(self) -> None:
        if not hasattr(self, "upstream"):
            return
        picture, before = Picture(), self.seen
        picture.check()
        picture.check_nothing_overlooked()
        for pk, instance in picture.instances.items():
            self.became(before.instances.get(pk), instance, picture)
            for run in picture.runs[pk].values():
                # A node is never begun again.
                if run["batch_id"]:
                    assert self.batches.setdefault(run["id"], run["batch_id"]) == run["batch_id"]
            if instance["state"] in CYCLE.final:
                assert self.ended.setdefault(pk, picture.runs[pk]) == picture.runs[pk]
        self.seen = picture

    def became(self, before: dict[str, Any] | None, now: dict[str, Any], picture: Picture) -> None:
        """A scheduled or backfilled instance that is ready, or has begun, since the last look was let to."""
        waited = before is None or before["state"] == "not_ready"
        if waited and now["state"] in {"ready", "running"} and now["run_type"] in {"online", "backfill"}:
            assert now["due"]
            assert not picture.missing(now)
        if before is not None and before["frozen_at"] and now["frozen_at"]:
            assert now["state"] == before["state"]

    def everything_ends(self) -> None:
        """With every node's job ending, and nothing frozen, off or paused, nothing is left unfinished."""
        for workflow in Workflow.objects.filter(enabled=False):
            services.set_enabled(workflow, True, by="ann")
        for frozen in CycleInstance.objects.filter(frozen_at__isnull=False):
            services.unfreeze(frozen, by="ann", holder=frozen.holder)
        for held in Cycle.objects.exclude(holder=""):
            transitions.look_again(transitions.release_cycles([held.pk], held.holder))
        for paused in Backfill.objects.filter(state="paused"):
            services.resume_backfill(paused, by="ann")
        for _round in range(500):
            commit(killed=True)
            clock.carry_on()
            running = list(NodeRun.objects.running().select_related("batch"))
            if not running:
                break
            make.end_batch(running[0].batch)
        picture = Picture()
        picture.check()
        picture.check_nothing_overlooked()
        for instance in picture.unfinished():
            assert instance["state"] == "not_ready", (instance, "never ends")
            assert picture.missing(instance) or not instance["due"]
        assert all(
            run["state"] in NODE_RUN.final
            for pk, runs in picture.runs.items()
            for run in runs.values()
            if picture.instances[pk]["state"] in CYCLE.final
        )


def test_verbs_in_any_order_keep_cycles_nodes_and_batches_in_agreement() -> None:
    group = make.group()
    for name in TASKS:
        make.task(name, group=group)
    make.task("everywhere", group=group, mode="broadcast")
    make.node(group=make.group())
    AnyOrder.group = group
    run_state_machine_as_test(
        AnyOrder,
        settings=settings(
            max_examples=EXAMPLES or 6,
            stateful_step_count=25 if EXAMPLES else 10,
            derandomize=not EXAMPLES,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
