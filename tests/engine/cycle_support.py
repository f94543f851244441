"""What must hold of cycle instances at every moment, against a slow reference that looks at everything anew."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from django.db import connection

from scheduling.models import Batch
from workflows.models import Backfill, Cycle, CycleDependency, CycleInstance, NodeRun, Workflow
from workflows.models import WorkflowEdge as Edge
from workflows.models import WorkflowNode as Node
from workflows.states import CYCLE, NODE_RUN

BEGAN = {"running", "success", "failed", "timed_out", "terminated"}
BAD = {"failed", "timed_out", "terminated", "cancelled"}


def commit(*, killed: bool = False) -> None:
    """Do what was to be done after the commit, in a test that never commits; or be killed first."""
    while connection.run_on_commit:
        callbacks, connection.run_on_commit = connection.run_on_commit, []
        if not killed:
            for _savepoints, act, _robust in callbacks:
                act()


class Picture:
    """Everything about workflows, as the database has it now, in a handful of queries."""

    def __init__(self) -> None:
        self.instances: dict[int, dict[str, Any]] = {
            each["id"]: each for each in CycleInstance.objects.values()
        }
        self.cycles: dict[int, dict[str, Any]] = {each["id"]: each for each in Cycle.objects.values()}
        self.workflows = {each.pk: each for each in Workflow.objects.select_related("revision")}
        self.runs: dict[int, dict[int, dict[str, Any]]] = defaultdict(dict)
        for run in NodeRun.objects.values():
            self.runs[run["instance_id"]][run["node_id"]] = run
        self.upstreams: dict[int, list[int]] = defaultdict(list)
        for cycle, upstream in CycleDependency.objects.values_list("cycle", "upstream"):
            self.upstreams[cycle].append(upstream)
        self.stopped = set(Batch.objects.filter(stopped=True).values_list("pk", flat=True))
        self.backfills = list(Backfill.objects.values())
        self.nodes = {each.pk: each for each in Node.objects.all()}
        self.edges: dict[int, list[Edge]] = defaultdict(list)
        for edge in Edge.objects.all():
            self.edges[edge.target_id].append(edge)

    def unfinished(self) -> list[dict[str, Any]]:
        return [each for each in self.instances.values() if each["state"] not in CYCLE.final]

    # --- the reference ---------------------------------------------------------------------------

    def verdict(self, instance: dict[str, Any], node: int) -> str:
        """What the definition says of a node now: "start", "pass_over" or "wait"."""
        runs = self.runs[instance["id"]]
        edges = self.edges[node]
        if instance["rerun_of_id"] or any(run["carried"] for run in runs.values()):
            edges = [edge for edge in edges if not runs[edge.source_id]["carried"]]
        if not edges:
            return "start"
        alive = sum(self.holds(edge, runs[edge.source_id]) is True for edge in edges)
        dead = sum(self.holds(edge, runs[edge.source_id]) is False for edge in edges)
        if self.nodes[node].join == "any":
            return "start" if alive else "pass_over" if dead == len(edges) else "wait"
        return "pass_over" if dead else "start" if alive == len(edges) else "wait"

    @staticmethod
    def holds(edge: Edge, source: dict[str, Any]) -> bool | None:
        if source["state"] not in NODE_RUN.final:
            return None
        match edge.condition:
            case "success":
                return source["state"] == "success"
            case "failure":
                return source["state"] in BAD
            case "result":
                return source["state"] == "success" and source["result"] == edge.expected
            case _:
                return True

    def result(self, instance: dict[str, Any]) -> str:
        """How an instance whose nodes have all ended has to end."""
        runs = self.runs[instance["id"]]
        some_are_core = any(self.nodes[node].core for node in runs)

        def bad(node: int, run: dict[str, Any]) -> bool:
            if some_are_core and not self.nodes[node].core:
                return False
            edges = self.edges[node]
            held = [self.holds(edge, runs[edge.source_id]) for edge in edges]
            should_have_run = not edges or (any(held) if self.nodes[node].join == "any" else all(held))
            return run["state"] in BAD or (run["state"] == "condition_not_met" and should_have_run)

        if not any(bad(node, run) for node, run in runs.items()):
            return "success"
        ended_badly = [run for run in runs.values() if run["state"] in BAD - {"cancelled"}]
        only_stopped = ended_badly and all(
            run["state"] == "terminated" and run["batch_id"] in self.stopped for run in ended_badly
        )
        stopped = instance["stopping"] == "stop" or (only_stopped and not instance["stopping"])
        return "terminated" if stopped else "failed"

    def may_be_ready(self, instance: dict[str, Any]) -> bool:
        """Whether nothing but that somebody looks keeps a waiting instance from being ready."""
        enabled = self.workflows[instance["workflow_id"]].enabled or instance["run_type"] != "online"
        return bool(
            instance["due"] and instance["frozen_at"] is None and enabled and not self.missing(instance)
        )

    def missing(self, instance: dict[str, Any]) -> list[int]:
        """The upstream cycles that an instance waits for still."""
        if not instance["waits_for_upstream"]:
            return []
        return [each for each in self.upstreams[instance["cycle_id"]] if not self.cycles[each]["succeeded"]]

    # --- what must hold --------------------------------------------------------------------------

    def check(self) -> None:
        """Everything that must hold at every moment, whoever does what."""
        for instance in self.instances.values():
            self.check_counters(instance)
            self.check_nodes(instance)
            self.check_end(instance)
            assert instance["frozen_at"] is None or instance["state"] in {"not_ready", "ready"}
        self.check_batches()
        for cycle in self.cycles.values():
            self.check_cycle(cycle)
        for backfill in self.backfills:
            self.check_backfill(backfill)

    def check_counters(self, instance: dict[str, Any]) -> None:
        runs = self.runs[instance["id"]].values()
        states = Counter(run["state"] for run in runs)
        counted = (instance["total"], instance["succeeded"], instance["failed"], instance["passed_over"])
        failed = states["failed"] + states["timed_out"] + states["terminated"]
        passed_over = states["condition_not_met"] + states["cancelled"]
        assert counted == (len(runs), states["success"], failed, passed_over), (instance, states)

    def check_nodes(self, instance: dict[str, Any]) -> None:
        runs = self.runs[instance["id"]]
        begun = instance["started_at"] is not None
        limit = instance["node_parallelism"]
        running = sum(run["state"] == "running" for run in runs.values())
        if limit:
            assert running <= limit
        for node, run in runs.items():
            if run["carried"]:
                assert run["state"] in NODE_RUN.final
                continue
            verdict, state = self.verdict(instance, node), run["state"]
            if state in BEGAN:
                assert (begun, verdict) == (True, "start"), (instance, run)
                assert run["batch_id"] is not None
            elif state == "condition_not_met":
                assert verdict == "pass_over", (instance, run)
            elif state == "cancelled":
                ended_unbegun = not begun and instance["state"] in CYCLE.final
                assert instance["stopping"] or ended_unbegun, (instance, run)
            elif begun:
                held_back = verdict == "start" and limit and running == limit
                assert verdict == "wait" or held_back, (instance, run, "was forgotten")

    def check_end(self, instance: dict[str, Any]) -> None:
        runs = self.runs[instance["id"]].values()
        ended = all(run["state"] in NODE_RUN.final for run in runs)
        match instance["state"]:
            case "not_ready" | "ready":
                assert instance["started_at"] is None
                assert not any(run["state"] in BEGAN and not run["carried"] for run in runs)
            case "running":
                assert any(run["state"] == "running" for run in runs), (instance, "has nothing to wait for")
            case _:
                assert ended, (instance, list(runs))
        marked = instance["state"] == "success" and instance["reason"].startswith("Marked as a success")
        if instance["state"] not in CYCLE.final or marked:
            return
        if instance["started_at"] is None:
            assert instance["state"] in {"terminated", "cancelled"}, instance
        else:
            assert instance["state"] == self.result(instance)

    def check_batches(self) -> None:
        """A join fires once: a batch belongs to one node run and to those that carry it."""
        own = Counter(
            run["batch_id"]
            for runs in self.runs.values()
            for run in runs.values()
            if run["batch_id"] and not run["carried"]
        )
        assert set(own.values()) <= {1}
        with connection.cursor() as cursor:
            cursor.execute("SELECT id FROM scheduling_batch WHERE trigger = 'workflow'")
            assert {batch for (batch,) in cursor.fetchall()} == set(own), "batches that belong to no node"

    def check_cycle(self, cycle: dict[str, Any]) -> None:
        candidates = [
            each
            for each in self.instances.values()
            if each["cycle_id"] == cycle["id"] and each["run_type"] != "test" and each["state"] != "cancelled"
        ]
        # An unfinished run counts, or a success, or one that discards those; if there is none, the newest.
        counting = [
            each
            for each in candidates
            if each["state"] == "success" or each["ended_at"] is None or each["discards_earlier"]
        ]
        effective = max(counting or candidates, key=lambda each: each["number"], default=None)
        succeeded = bool(counting) and effective is not None and effective["state"] == "success"
        succeeded = (succeeded or (not counting and cycle["past_success"])) and not cycle["holder"]
        wanted = (effective["id"] if effective else None, succeeded)
        assert (cycle["effective_id"], cycle["succeeded"]) == wanted, (cycle, candidates)

    def check_backfill(self, backfill: dict[str, Any]) -> None:
        of_it = [each for each in self.instances.values() if each["backfill_id"] == backfill["id"]]
        unfinished = [each for each in of_it if each["state"] not in CYCLE.final]
        assert sum(each["due"] for each in unfinished) <= backfill["parallelism"]
        match backfill["state"]:
            case "running" | "paused" | "terminating":
                assert unfinished, (backfill, "has nothing to wait for")
            case _:
                assert not unfinished

    # --- what must hold when nothing else is going on --------------------------------------------

    def check_nothing_overlooked(self) -> None:
        """Nothing waits for what is there already; the limit of each workflow is used, and kept."""
        room: dict[int, float] = {}
        for pk, workflow in self.workflows.items():
            limit = workflow.current.parallelism
            running = [
                each
                for each in self.instances.values()
                if each["workflow_id"] == pk and each["state"] == "running" and each["run_type"] != "test"
            ]
            assert not limit or len(running) <= limit
            room[pk] = limit - len(running) if limit else float("inf")
        for instance in self.unfinished():
            if instance["state"] == "not_ready":
                assert not self.may_be_ready(instance), (instance, "should be ready")
            elif instance["state"] == "ready" and instance["frozen_at"] is None:
                enabled = self.workflows[instance["workflow_id"]].enabled or instance["run_type"] != "online"
                room_for_it = instance["run_type"] == "test" or room[instance["workflow_id"]] > 0
                assert not (enabled and room_for_it), (instance, "should have begun")


def traceless(act: Callable[[], Any], refusal: type[Exception]) -> Any:
    """What `act` returns, or None when it was refused, which must leave no trace."""
    before = everything()
    try:
        return act()
    except refusal:
        assert everything() == before
        return None


def everything() -> Any:
    """A comparable picture of all rows of workflows, and of how many batches there are."""
    picture = Picture()
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*), max(id) FROM scheduling_batch")
        batches = cursor.fetchone()
    return picture.instances, picture.cycles, dict(picture.runs), picture.backfills, batches
