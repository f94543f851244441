"""What holds a rerun up, in words, and what its operator can do about that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from reruns import record_queries as ask
from reruns.models import OnFailure, Rerun, RerunItem
from reruns.states import ItemState, RerunState
from scheduling.engine import lead
from scheduling.models import JournalEntry
from scheduling.permissions import User
from scheduling.reasons import actor_in_words, in_words
from scheduling.views.sections import Section
from workflows.links import sees
from workflows.models import CycleInstance
from workflows.permissions import RERUN as RERUN_CYCLE

NAMED = 5
_UNSUCCESSFUL = [ItemState.FAILED.value, ItemState.TERMINATED.value]


@dataclass(frozen=True)
class Failed:
    """An item that did not succeed: why, how many wait for it, and what this user may do about it."""

    item: RerunItem
    waiting: int
    why: str
    address: str
    may_mark: bool
    may_rerun: bool

    @property
    def number(self) -> int:
        return int(self.item.instance_id or self.item.original_id)


@dataclass(frozen=True)
class HoldUps:
    """All of it. `ways` are what can be done, in the order in which one would think of it."""

    failed: Sequence[Failed]
    more: int
    blocked: int
    sentences: Sequence[str]
    ways: Sequence[str]

    def __bool__(self) -> bool:
        return bool(self.failed or self.sentences)


def section_of(
    rerun: Rerun, counts: ask.Counts, entries: Sequence[JournalEntry], user: User, *, may: bool
) -> Section:
    """The note of what holds `rerun` up, for whoever may operate it (`may`) with what they can do."""
    found = holdups_of(rerun, counts, entries, user, may=may)
    said = [(each.item.pk, each.waiting, each.why, each.may_mark, each.may_rerun) for each in found.failed]
    return Section("holdups", (said, found.more, found.sentences, found.ways), {"holdups": found})


def holdups_of(
    rerun: Rerun, counts: ask.Counts, entries: Sequence[JournalEntry], user: User, *, may: bool
) -> HoldUps:
    """What holds it up; nothing when nothing does, or when it has ended."""
    if rerun.is_finished or rerun.is_draft:
        return HoldUps((), 0, 0, (), ())
    failed, blocked = _failed(rerun, counts, user)
    sentences = _standing(rerun, counts, entries)
    if sentences:
        # What is frozen is no hindrance while all goes well.
        sentences += _frozen(counts)
    ways = _ways(rerun, counts) if may and sentences else ()
    return HoldUps(failed, counts.failed - len(failed), blocked, sentences, ways)


# --- what failed ---------------------------------------------------------------------------------------


def _failed(rerun: Rerun, counts: ask.Counts, user: User) -> tuple[list[Failed], int]:
    if not counts.failed:
        return [], 0
    of = RerunItem.objects.filter(rerun=rerun.pk, state__in=_UNSUCCESSFUL).order_by("wave", "cycle_time", "pk")
    items = list(of[:NAMED])
    instances = CycleInstance.objects.in_bulk([each.instance_id for each in items if each.instance_id])
    waiting = set(RerunItem.objects.filter(rerun=rerun.pk).waiting().values_list("pk", flat=True))
    shape = ask.shape_of(rerun)
    found, blocked = [], set[int]()
    for each in items:
        below = shape.below(each.pk) & waiting
        blocked |= below
        instance = instances.get(each.instance_id or 0)
        may = (
            instance is not None
            and rerun.state != RerunState.TERMINATING
            and user.has_perm(RERUN_CYCLE, instance)
        )
        found.append(
            Failed(
                each,
                len(below),
                in_words(each.reason or (instance.reason if instance is not None else "")),
                reverse("cycle-detail", args=[instance.pk]) if instance and sees(user, each.team_id) else "",
                may_mark=bool(may and instance and instance.can_mark_success),
                may_rerun=bool(may and instance and instance.can_rerun),
            )
        )
    return found, len(blocked)


# --- how it stands -------------------------------------------------------------------------------------


def _standing(rerun: Rerun, counts: ask.Counts, entries: Sequence[JournalEntry]) -> list[str]:
    running = counts.of(ItemState.RUNNING)
    match rerun.state:
        case RerunState.PAUSED:
            return [_paused(entries), _goes_on(running)]
        case RerunState.TERMINATING:
            text = ngettext(
                "It is being terminated: %d instance has not confirmed its end yet.",
                "It is being terminated: %d instances have not confirmed their end yet.",
                running,
            )
            return [text % running]
        case RerunState.FAILED:
            return [_("Nothing more of it can run until somebody steps in.")]
    sentences = []
    if not lead.is_led():
        return [_("No scheduler leads, so nothing more is generated. Start one with “manage.py scheduler”.")]
    if counts.failed and rerun.on_failure == OnFailure.STOP:
        sentences.append(_("Nothing more is generated, as it is set to stop when an instance fails."))
        sentences.append(_goes_on(running))
    elif counts.failed:
        sentences.append(_("The other branches go on."))
    return sentences


def _paused(entries: Sequence[JournalEntry]) -> str:
    entry = next((each for each in entries if each.action == "paused"), None)
    if entry is None:
        return _("It is paused: nothing more is generated until it is resumed.")
    words = {"who": actor_in_words(entry.actor), "why": in_words(entry.reason)}
    if not entry.reason:
        return _("Paused by %(who)s: nothing more is generated until it is resumed.") % words
    return _("Paused by %(who)s (%(why)s): nothing more is generated until it is resumed.") % words


def _goes_on(running: int) -> str:
    if not running:
        return _("Nothing of it runs.")
    return ngettext("%d instance that runs goes on.", "%d instances that run go on.", running) % running


def _frozen(counts: ask.Counts) -> list[str]:
    if not counts.frozen:
        return []
    text = ngettext(
        "%d instance stays frozen until all of it has succeeded, or it is terminated.",
        "%d instances stay frozen until all of it has succeeded, or it is terminated.",
        counts.frozen,
    )
    return [text % counts.frozen]


def _ways(rerun: Rerun, counts: ask.Counts) -> list[str]:
    """What the operator can do; the buttons stand beside it."""
    if rerun.state == RerunState.TERMINATING:
        return []
    ways = []
    if rerun.can_resume:
        ways.append("resume")
    elif counts.failed:
        ways.append("later")
    if counts.failed:
        ways += ["mark", "hand"]
        if counts.of(ItemState.WAITING):
            ways.append("take_out")
    if counts.failed or rerun.state == RerunState.FAILED:
        ways.append("terminate")
    return ways
