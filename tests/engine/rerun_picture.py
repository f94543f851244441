"""What must hold of reruns at every moment, against references that look at everything anew."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection, transaction

from reruns.models import Rerun, RerunItem
from reruns.states import ITEM, RERUN
from tests.engine.cycle_support import Picture

GENERATED = {"running", "success", "failed", "terminated"}
ACTIVE = {"running", "paused", "failed", "terminating"}


class Killed(BaseException):
    """The process was killed."""


@contextmanager
def killed_after(commits: int) -> Iterator[None]:
    """Whoever acts in the block is killed when so many of its transactions are through, if there are as many.

    The test itself is one transaction, so one of those in it ends with a savepoint of the same depth.
    """
    depth, left, leave = len(connection.savepoint_ids), commits, transaction.Atomic.__exit__

    def leave_and_die(self: Any, kind: Any, value: Any, trace: Any) -> None:
        nonlocal left
        leave(self, kind, value, trace)
        if kind is None and len(connection.savepoint_ids) == depth:
            left -= 1
            if not left:
                raise Killed

    transaction.Atomic.__exit__ = leave_and_die  # type: ignore[method-assign]
    try:
        yield
    except Killed:
        pass
    finally:
        transaction.Atomic.__exit__ = leave  # type: ignore[method-assign]


class RerunPicture(Picture):
    """Everything about workflows and reruns, as the database has it now."""

    def __init__(self) -> None:
        super().__init__()
        self.reruns = {each["id"]: each for each in Rerun.objects.values()}
        self.items: dict[int, dict[str, Any]] = {each["id"]: each for each in RerunItem.objects.values()}
        self.of: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for item in self.items.values():
            self.of[item["rerun_id"]].append(item)

    def ancestors(self, cycle: int) -> set[int]:
        """Every cycle that this one waits for, also through others."""
        found: set[int] = set()
        left = [cycle]
        while left:
            for upstream in self.upstreams[left.pop()]:
                if upstream not in found:
                    found.add(upstream)
                    left.append(upstream)
        return found

    def check(self) -> None:
        super().check()
        self.check_holders()
        for rerun in self.reruns.values():
            self.check_rerun(rerun, self.of[rerun["id"]])

    def check_holders(self) -> None:
        """Exactly what waits is held, and what is to be frozen frozen: nothing is stranded, nothing lost."""
        frozen = {
            (each["holder"], pk)
            for pk, each in self.instances.items()
            if each["frozen_at"] and each["holder"].startswith("rerun:")
        }
        held = {(each["holder"], pk) for pk, each in self.cycles.items() if each["holder"]}
        items = [each for each in self.items.values() if self.reruns[each["rerun_id"]]["state"] in ACTIVE]
        holder = {pk: f"rerun:{pk}" for pk in self.reruns}
        assert frozen == {
            (holder[each["rerun_id"]], each["original_id"]) for each in items if each["state"] == "frozen"
        }
        waiting, failed = (
            {(holder[each["rerun_id"]], each["cycle_id"]) for each in items if each["state"] == state}
            for state in ("waiting", "failed")
        )
        # What could not be generated is held as long as somebody may resume it.
        assert waiting <= held <= waiting | failed

    def check_rerun(self, rerun: dict[str, Any], items: list[dict[str, Any]]) -> None:
        states = {each["state"] for each in items}
        match rerun["state"]:
            case "draft":
                assert states == {"planned"}
            case "success":
                assert states <= {"success", "cancelled", "unfrozen"}, (rerun, states)
            case "failed":
                assert not states & {"planned"}
            case "terminating":
                assert not states & {"waiting", "frozen"}, (rerun, states)
            case "terminated":
                assert states <= ITEM.final
        for each in items:
            self.check_item(rerun, each)

    def check_item(self, rerun: dict[str, Any], item: dict[str, Any]) -> None:
        over = rerun["state"] in RERUN.final or rerun["state"] == "draft"
        out = item["state"] in {"cancelled", "unfrozen"}
        assert item["owned"] == (not over and not out), (rerun, item)
        assert bool(item["shown_state"]) == (rerun["state"] in RERUN.final)
        if over:
            return
        instance = self.instances.get(item["instance_id"])
        match item["state"]:
            case "running":
                assert instance is not None
                assert instance["ended_at"] is None, (item, instance)
            case "success":
                assert instance is not None
            case "failed" | "terminated" if instance is not None:
                assert instance["state"] in {"failed", "terminated", "cancelled"}, (item, instance)
