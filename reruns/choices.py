"""Which nodes of an instance a rerun runs: the same choice for the source, and for each instance downstream."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from reruns import situation
from reruns.candidates import Candidate
from reruns.eligibility import Refusal
from reruns.models import Rerun
from workflows.models import CycleInstance
from workflows.services import choice_for_rerun


@dataclass(frozen=True)
class NodeChoice:
    """A node, its task, how it ended (empty: it never ran), and whether the user may rerun it.

    `chosen` is of a chosen instance what is chosen now, of another what ticking it would choose.
    """

    key: str
    task: str
    state: str
    permitted: bool
    proposed: bool
    chosen: bool


def nodes_of(candidate: Candidate) -> list[NodeChoice]:
    """The nodes of a candidate, as for a rerun of it alone; downstream all of them are proposed."""
    plan = candidate.plan
    found = CycleInstance.objects.select_related("revision", "workflow__revision")
    instance = found.get(pk=candidate.instance_id)
    permitted = {*candidate.content.permitted}
    choices = _choices(instance, as_it_ran=plan.rerun.as_it_ran, permitted=permitted)
    if not candidate.is_source:
        choices = [replace(each, proposed=each.permitted, chosen=each.permitted) for each in choices]
    if not candidate.chosen:
        return choices
    wanted = set(candidate.nodes) or {each.key for each in choices}
    return [replace(each, chosen=each.key in wanted) for each in choices]


def source_nodes(instance: CycleInstance, *, user: Any = None, as_it_ran: bool = True) -> list[NodeChoice]:
    """The nodes of an instance at which a rerun may begin, before there is a draft.

    Proposed is what failed, was cancelled, terminated or timed out, with what comes after it and did not
    succeed; nothing when there is none of these.
    """
    revision = instance.revision_id if as_it_ran else instance.workflow.revision_id or 0
    permitted = set(situation.contents_for({revision}, user)[revision].permitted)
    return _choices(instance, as_it_ran=as_it_ran, permitted=permitted)


_BAD = frozenset({"failed", "cancelled", "terminated", "timed_out"})


def _choices(instance: CycleInstance, *, as_it_ran: bool, permitted: set[str]) -> list[NodeChoice]:
    found = choice_for_rerun(instance, as_it_ran=as_it_ran)
    # For a rerun by itself a success proposes everything; here the person says what of it was wrong.
    some = any(each.state in _BAD for each in found)
    return [
        NodeChoice(
            each.key,
            each.task,
            each.state,
            each.key in permitted,
            some and each.chosen and each.key in permitted,
            some and each.chosen and each.key in permitted,
        )
        for each in found
    ]


def source_refusal(
    instance: CycleInstance, *, user: Any = None, freeze_mode: bool = True, now: datetime | None = None
) -> Refusal | None:
    """Why a rerun downstream cannot begin at `instance`, or None; by default what no freeze mode would help."""
    found = situation.situation_of(
        Rerun(freeze_mode=freeze_mode), instance.cycle_id, user=user, now=now, alone=True
    )
    return situation.source_refusal(instance, found)
