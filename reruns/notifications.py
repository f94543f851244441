"""What is told of a rerun (B9): that it succeeded, was terminated, or that one of its instances failed.

As with tasks (scheduling.notifications), texts are made when the event happens, in the installation's language.
"""

from __future__ import annotations

from collections import Counter

from django.conf import settings
from django.utils import timezone, translation
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext_lazy

from reruns.models import Rerun, RerunItem
from reruns.states import ItemState, RerunState
from scheduling import words
from scheduling.models import JournalEntry
from scheduling.notifications import channels_for, post
from scheduling.notifications.rules import WORDS
from scheduling.reasons import actor_in_words, in_words

SUCCESS, TERMINATED = "success", "terminated"
INSTANCE_FAILED, INSTANCE_STOPPED = "instance_failed", "instance_stopped"
EVENTS = (SUCCESS, TERMINATED, INSTANCE_FAILED, INSTANCE_STOPPED)


def register() -> None:
    """Make known what the events are called; called once, when the app is ready."""
    WORDS.setdefault(TERMINATED, pgettext_lazy("cycle", "Terminated"))
    WORDS.setdefault(INSTANCE_FAILED, gettext_lazy("An instance failed"))
    WORDS.setdefault(INSTANCE_STOPPED, gettext_lazy("An instance was stopped"))


def tell_ended(rerun: Rerun) -> None:
    """Tell of the end of a rerun, in the transaction that ended it."""
    event = SUCCESS if rerun.state == RerunState.SUCCESS else TERMINATED
    subject = {
        SUCCESS: gettext_lazy("[%(team)s] Rerun %(rerun)s downstream of %(name)s succeeded"),
        TERMINATED: gettext_lazy("[%(team)s] Rerun %(rerun)s downstream of %(name)s was terminated"),
    }[event]
    _tell(rerun, event, f"rerun:{rerun.pk}:{event}", subject, _counted)


def tell_failed(item: RerunItem) -> None:
    """Tell of an instance that did not succeed, in the transaction of its end; once for each of its runs."""
    run = item.instance_id or f"item:{item.pk}:{item.ended_at:%Y%m%d%H%M%S%f}"
    event = INSTANCE_STOPPED if item.state == ItemState.TERMINATED else INSTANCE_FAILED
    subject = {
        INSTANCE_FAILED: gettext_lazy("[%(team)s] An instance of rerun %(rerun)s failed: %(cycle)s"),
        INSTANCE_STOPPED: gettext_lazy("[%(team)s] An instance of rerun %(rerun)s was stopped: %(cycle)s"),
    }[event]

    def text(_rerun: Rerun) -> list[str]:
        lines = [_("Cycle: %(cycle)s") % {"cycle": item.title}]
        return [*lines, in_words(item.reason)] if item.reason else lines

    _tell(item.rerun, event, f"rerun:{item.rerun_id}:{event}:{run}", subject, text, item)


def _tell(
    rerun: Rerun, event: str, key: str, subject: object, text: object, item: RerunItem | None = None
) -> None:
    told = channels_for(rerun.notify, event)
    if not told:
        return
    with translation.override(settings.LANGUAGE_CODE), timezone.override(None):
        facts = {
            "team": rerun.team.name,
            "rerun": rerun,
            "name": rerun.title,
            "cycle": item.title if item else "",
        }
        post(
            key,
            event=event,
            channels=told,
            team_id=rerun.team_id,
            subject=str(subject) % facts,
            text="\n".join(text(rerun)),  # type: ignore[operator]
            path=f"/reruns/{rerun.pk}/",
        )


def _terminated(rerun: Rerun) -> list[str]:
    """Who terminated a rerun and why, from the journal."""
    entry = JournalEntry.objects.about(rerun).filter(action="terminated").first()
    if entry is None:
        return []
    words = {"who": actor_in_words(entry.actor), "why": entry.reason}
    text = _("Terminated by %(who)s: %(why)s") if entry.reason else _("Terminated by %(who)s")
    return [text % words]


def _counted(rerun: Rerun) -> list[str]:
    states = Counter(RerunItem.objects.filter(rerun=rerun).values_list("state", flat=True))
    lines = _terminated(rerun) if rerun.state == RerunState.TERMINATED else []
    lines += [
        f"{ItemState(state).label}: {count}"
        for state, count in sorted(states.items(), key=lambda each: list(ItemState).index(ItemState(each[0])))
    ]
    if rerun.submitted_at is not None and rerun.ended_at is not None:
        lines.append(_("It took %(length)s.") % {"length": words.length(rerun.ended_at - rerun.submitted_at)})
    if rerun.reason:
        lines.append(_("Reason for the rerun: %(reason)s") % {"reason": rerun.reason})
    return lines
