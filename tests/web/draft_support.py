"""What is downstream of one hour: an instance of each kind that step 2 of a draft tells apart."""

from __future__ import annotations

import re
from typing import Any

from django.test import Client

from reruns import services
from reruns.models import Rerun
from scheduling.models import Team
from tests import factories as make
from tests.engine.rerun_support import at, cycle
from tests.web.conftest import Desk
from tests.web.pages import text_of
from workflows.models import CycleInstance


class Downstream:
    """`hourly` failed at its node `check`. After it came `daily`, and after that all the others.

    `costs` belongs to finance, who granted its node `book` to the team of the desk; `claims` is all theirs.
    """

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.finance: Team = make.team("finance")
        make.user("wang", team=self.finance, role="owner")
        theirs = make.group(team=self.finance)
        self.hourly = self._cycle(
            "hourly",
            "load > check, check > publish",
            "failed",
            hour=4,
            nodes={"load": "success", "check": "failed", "publish": "cancelled"},
        )
        self.daily = self._cycle("daily", "extract > join", "success", after=self.hourly)
        self.report = self._cycle("report", "a > b", "failed", after=self.daily)
        self.board = self._cycle("board", "a > b", "not_ready", after=self.daily)
        self.scores = self._cycle("scores", "a", "running", after=self.daily)
        self.by_hand = self._cycle("by_hand", "a", "success", after=self.daily, run_type="backfill")
        self.costs = self._cycle("costs", "reckon > book", "success", after=self.daily, group=theirs)
        self.claims = self._cycle("claims", "claim", "success", after=self.daily, group=theirs)
        make.grant(self.costs.workflow.current.nodes.get(key="book").task, to=desk.team)

    def _cycle(
        self,
        name: str,
        keys: str,
        state: str,
        *,
        hour: int = 1,
        after: CycleInstance | None = None,
        group: Any = None,
        **values: Any,
    ) -> CycleInstance:
        workflow = make.workflow(name, group=group or self.desk.group, nodes=keys)
        return cycle(workflow, at(hour), state, after=[after] if after else [], **values)

    def draft(self, client: Client, *downstream: CycleInstance, **settings: Any) -> Rerun:
        """A draft of whoever uses `client`, with these instances chosen."""
        user: Any = client.user  # type: ignore[attr-defined]
        return services.plan(self.hourly, downstream=downstream, by=user, **settings)


def address(rerun: Rerun, step: str) -> str:
    return f"/reruns/{rerun.pk}/{step}/"


def chosen(rerun: Rerun) -> dict[str, list[str]]:
    """What is stored as chosen: the nodes of each workflow, none of them for all."""
    rows = rerun.items.select_related("workflow").order_by("pk")
    return {item.workflow.name: item.nodes for item in rows}


def ticked(page: Any) -> list[str]:
    """The keys of the nodes that a page ticks."""
    return re.findall(r'name="node" value="([\w-]+)" checked', text_of(page))


def seen(page: Any) -> dict[str, str]:
    """What the forms of a page say of what it shows."""
    found = re.search(r'name="seen" value="([^"]*)"', text_of(page))
    assert found, "the page says nothing of the draft that it shows"
    shown = re.search(r'name="shown" value="([^"]*)"', text_of(page))
    return {"seen": found.group(1)} | ({"shown": shown.group(1)} if shown else {})


def text_without_marks(page: Any) -> str:
    """What there is to read on a page, on one line."""
    return " ".join(re.sub(r"<[^>]+>", " ", text_of(page)).split())
