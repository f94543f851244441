"""What a plan does to each instance, in the words of its pages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import ngettext, pgettext

from reruns.candidates import Candidate
from reruns.models import Action, Rerun
from reruns.plans import Conflict, Plan
from reruns.views.draft import record_of


def deed_of(candidate: Candidate) -> str:
    """What becomes of an instance, in a few words that end no sentence."""
    if candidate.chosen and candidate.refusal is None:
        return {
            Action.RERUN.value: _("will be rerun"),
            Action.TERMINATE.value: _("will be terminated, then rerun"),
            Action.FREEZE.value: _("will be frozen until the rerun succeeded"),
        }[candidate.action]
    said = candidate.refusal.in_short if candidate.refusal else ""
    outlook = {
        "waits": _("waits for the result of the rerun"),
        "as_planned": _("runs as planned"),
    }.get(candidate.outlook, "")
    return " · ".join(filter(None, [said, outlook])) or _("stays as it is")


def short_deed_of(candidate: Candidate) -> str:
    """The same for a drawing, beside the count of nodes: nothing for what stays as it is."""
    if candidate.chosen and candidate.refusal is None:
        return {
            Action.RERUN.value: pgettext("what is done to it", "rerun"),
            Action.TERMINATE.value: pgettext("what is done to it", "terminate, rerun"),
            Action.FREEZE.value: pgettext("what is done to it", "freeze"),
        }[candidate.action]
    if candidate.refusal is not None:
        unfinished = candidate.refusal.kind == "freeze_mode"
        return _("needs freeze mode") if unfinished else candidate.refusal.in_short
    return _("waits for it") if candidate.outlook == "waits" else ""


def nodes_of(candidate: Candidate) -> str:
    """How many of its nodes are rerun, or when it is not ticked how many it has."""
    total = candidate.node_total
    if not candidate.chosen or candidate.refusal is not None:
        return ngettext("%d node", "%d nodes", total) % total
    return ngettext("%(chosen)d of %(total)d node", "%(chosen)d of %(total)d nodes", total) % {
        "chosen": candidate.node_count,
        "total": total,
    }


@dataclass(frozen=True)
class Held:
    """Instances that another rerun concerns; `address` is empty when its record is not the reader's to see."""

    rerun: Any
    count: int
    address: str


@dataclass(frozen=True)
class Notes:
    """What of a plan cannot be ticked, counted by why; what wants words of its own has them."""

    held: list[Held]
    upstream: list[Held]
    unfinished: int
    frozen: int
    offline: int
    ended_otherwise: int
    lost: int
    not_rerun: int
    """How many results chosen instances read that are not rerun."""


def notes_of(plan: Plan, user: Any) -> Notes:
    """Why some of a plan cannot be ticked."""
    kinds: dict[str, int] = {}
    for each in plan.candidates:
        if each.refusal is not None:
            kinds[each.refusal.kind] = kinds.get(each.refusal.kind, 0) + 1
    return Notes(
        held=held_by(plan.conflicts, user),
        upstream=held_by(plan.upstream_reruns, user),
        unfinished=kinds.get("freeze_mode", 0),
        frozen=kinds.get("frozen", 0),
        offline=kinds.get("mode", 0),
        ended_otherwise=kinds.get("state", 0),
        lost=len(plan.lost),
        not_rerun=len({each.upstream_id for each in plan.holes}),
    )


def held_by(conflicts: list[Conflict], user: Any) -> list[Held]:
    """Other reruns and how many instances they concern, with links to those that `user` may see."""
    if not conflicts:
        return []
    seen = _seen((each.rerun.pk for each in conflicts), user)
    return [
        Held(each.rerun, len(each.cycles), record_of(each.rerun.pk) if each.rerun.pk in seen else "")
        for each in conflicts
    ]


def _seen(pks: Iterable[int], user: Any) -> set[int]:
    return set(Rerun.objects.visible_to(user).filter(pk__in=list(pks)).values_list("pk", flat=True))
