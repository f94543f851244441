"""The overview's part on cycles: which failed and stand so, and which are late, with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast
from urllib.parse import urlencode

from django.conf import settings
from django.urls import reverse
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from scheduling.permissions import User
from scheduling.reasons import actor_in_words
from scheduling.views.overview import Lateness
from scheduling.views.sections import Section
from workflows import detail_queries as ask
from workflows.links import address_of, cycle_name, sees
from workflows.mentions import linked
from workflows.models import Cycle, CycleInstance, Workflow
from workflows.states import CycleState
from workflows.why import failure_in_words

DAY = timedelta(days=1)
SHOWN = 8
MOST_WORKFLOWS = 100
MOST_COUNTED = 1000


@dataclass(frozen=True)
class Failed:
    """A workflow of which cycles stand as failed: how many, the one that failed last, and why it did."""

    instance: CycleInstance
    count: int
    why: SafeString
    address: str


@dataclass(frozen=True)
class Late:
    """A cycle whose time has come and that has not begun, why, and the cycle at the root of that.

    `root` is None where the reason says it all, or the reader may not see it.
    """

    instance: CycleInstance
    why: str
    root: Cycle | None

    @property
    def root_name(self) -> str:
        return "" if self.root is None else cycle_name(self.root)

    @property
    def root_address(self) -> str:
        """The page of the root's run, or of its workflow when it never ran."""
        if self.root is None:
            return ""
        if self.root.effective is None:
            return reverse("workflow-detail", args=[self.root.workflow_id])
        return address_of(self.root.effective)


def section(user: User, now: datetime) -> Section:
    """What of cycles wants a look."""
    instances = CycleInstance.objects.visible_to(user)
    failed, workflows = _failed(user, instances, now)
    late, count = _late(user, instances, now)
    in_words = ngettext("%(n)s cycle", "%(n)s cycles", count) % {"n": count}
    return Section(
        "attention",
        [(each.instance.pk, each.count, each.why) for each in failed]
        + [(each.instance.pk, each.why, each.root_name) for each in late]
        + [workflows, count],
        {
            "failed_cycles": failed,
            "more_failed_cycles": workflows - len(failed),
            "late_cycles": late,
            "more_late_cycles": count - len(late),
            "failed_cycles_address": _list(state=CycleState.FAILED.value),
            "late_cycles_address": _list(state=[CycleState.NOT_READY.value, CycleState.READY.value]),
            "lateness": Lateness("late-cycles", count, count > MOST_COUNTED, in_words),
            "any_workflow": bool(failed or late) or Workflow.objects.visible_to(user).exists(),
        },
    )


def _list(**narrowed: Any) -> str:
    return f"{reverse('cycle-list')}?{urlencode(narrowed, doseq=True)}"


def _failed(user: User, instances: Any, now: datetime) -> tuple[list[Failed], int]:
    workflows = list(instances.failures_by_workflow(now - DAY)[:MOST_WORKFLOWS])
    shown = workflows[:SHOWN]
    newest = instances.failed_at(each["at"] for each in shown).for_rows()
    last = {(each.workflow_id, each.ended_at): each for each in newest}
    troubles = ask.troubles_of(last.values())
    # One may be rerun, and so stand as failed no more, between the two queries.
    last_of = [(each, last.get((each["workflow"], each["at"]))) for each in shown]
    failed = [(each, instance) for each, instance in last_of if instance is not None]
    whys = linked((failure_in_words(it, troubles.get(it.pk, [])) for _each, it in failed), user)
    rows = [
        Failed(
            instance=instance,
            count=each["count"],
            why=why,
            address=_list(workflow=each["workflow"], state=CycleState.FAILED.value),
        )
        for (each, instance), why in zip(failed, whys, strict=True)
    ]
    return rows, len(workflows)


def _late(user: User, instances: Any, now: datetime) -> tuple[list[Late], int]:
    before = now - timedelta(seconds=cast("float", settings.TAILRACE["MISFIRE_GRACE"]))
    # By themselves first. How many are late PostgreSQL cannot know, and it joins what it takes for thousands
    # with all cycles there are.
    late = list(instances.late(before).values_list("pk", flat=True)[: MOST_COUNTED + 1])
    found = list(instances.filter(pk__in=late[:SHOWN]).for_rows().with_unmet().order_by("due_at", "pk"))
    upstreams = _cycles(found)
    waiting = [each.cycle_id for each in found if each.unmet]
    roots = ask.root_causes(waiting) if waiting else {}
    rows = [
        Late(each, _why(each, upstreams), _root(each, roots.get(each.cycle_id, []), user)) for each in found
    ]
    return rows, len(late)


def _root(instance: Any, roots: Sequence[Cycle], user: User) -> Cycle | None:
    further = [cycle for cycle in roots if cycle.pk != instance.unmet]
    return next((cycle for cycle in further if sees(user, cycle.workflow.team_id)), None)


def _cycles(found: Sequence[Any]) -> Mapping[int, Cycle]:
    wanted = {each.unmet for each in found if each.unmet}
    return Cycle.objects.select_related("workflow__revision").in_bulk(wanted)


def _why(instance: Any, upstreams: Mapping[int, Cycle]) -> str:
    if instance.frozen_at is not None:
        who = actor_in_words(instance.frozen_by)
        if instance.frozen_reason:
            return _("Frozen by %(who)s: %(why)s") % {"who": who, "why": instance.frozen_reason}
        return _("Frozen by %(who)s") % {"who": who}
    if instance.state == CycleState.READY:
        return _("It is ready, and waits until the workflow's parallelism lets it begin.")
    upstream = upstreams.get(instance.unmet)
    if instance.waits_for_upstream and upstream is not None:
        return _("Blocked by %(cycle)s, which has not succeeded.") % {"cycle": cycle_name(upstream)}
    return _("Its time has come; the scheduler has not looked at it yet.")
