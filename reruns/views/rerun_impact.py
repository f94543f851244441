"""What pausing, resuming or terminating a rerun will do, and taking items out of it, said before it is done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.models import Q
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from reruns.content import Edit, edits_of
from reruns.eligibility import in_part
from reruns.holes import readers_of
from reruns.models import Action, Rerun, RerunItem
from reruns.record_queries import Counts, counts_of, shape_of
from reruns.services.generating import forbidden_to
from reruns.states import ItemState
from scheduling.clocks import by_clock
from workflows.detail_queries import successes_until
from workflows.models import NodeRun
from workflows.states import CycleState

NAMED = 5
_UNSUCCESSFUL = (ItemState.RUNNING, ItemState.FAILED, ItemState.TERMINATED)


def _counts(rerun: Rerun) -> Counts:
    return counts_of([rerun])[rerun.pk]


def of_pausing(rerun: Rerun) -> list[str]:
    """What a pause will do."""
    counts = _counts(rerun)
    waiting, running = counts.of(ItemState.WAITING), counts.of(ItemState.RUNNING)
    effects = [
        ngettext(
            "%d instance that waits to rerun is not generated until the rerun is resumed.",
            "%d instances that wait to rerun are not generated until the rerun is resumed.",
            waiting,
        )
        % waiting
    ]
    if running:
        effects.append(
            ngettext("%d instance that runs goes on.", "%d instances that run go on.", running) % running
        )
    return [*effects, *_stays_frozen(counts)]


def of_resuming(rerun: Rerun, user: Any) -> list[str]:
    """What a resume by `user` will do."""
    counts = _counts(rerun)
    effects = []
    if counts.failed:
        effects.append(
            ngettext(
                "%d instance that did not succeed is rerun: its nodes that did not, and what follows them.",
                "%d instances that did not succeed are rerun: their nodes that did not, and what follows them.",
                counts.failed,
            )
            % counts.failed
        )
    waiting = counts.of(ItemState.WAITING)
    if waiting:
        effects.append(
            ngettext(
                "%d instance that waits to rerun follows when its upstream has succeeded.",
                "%d instances that wait to rerun follow when their upstream has succeeded.",
                waiting,
            )
            % waiting
        )
    done = counts.succeeded
    if done:
        effects.append(
            ngettext(
                "%d instance that succeeded does not run again.",
                "%d instances that succeeded do not run again.",
                done,
            )
            % done
        )
    return [
        *effects,
        *_stays_frozen(counts),
        _("From now on your permissions count for what it runs."),
        *_forbidden(rerun, user),
    ]


def _forbidden(rerun: Rerun, user: Any) -> list[str]:
    names = forbidden_to(user, rerun)
    if not names:
        return []
    text = ngettext(
        "You may not rerun %(count)d of these, which will fail: %(names)s. Ask for permission first.",
        "You may not rerun %(count)d of these, which will fail: %(names)s. Ask for permission first.",
        len(names),
    )
    return [text % {"count": len(names), "names": in_part(names)}]


def of_terminating(rerun: Rerun) -> list[str]:
    """What terminating will do."""
    counts = _counts(rerun)
    effects = []
    running, waiting, frozen = counts.of(ItemState.RUNNING), counts.of(ItemState.WAITING), counts.frozen
    if running:
        instances = ngettext("%d running instance is stopped", "%d running instances are stopped", running)
        nodes = NodeRun.objects.running().filter(
            instance__in=RerunItem.objects.filter(rerun=rerun.pk, state=ItemState.RUNNING).values("instance")
        )
        count = nodes.count()
        effects.append(
            ngettext(
                "%(instances)s: %(nodes)d node that runs is told to end.",
                "%(instances)s: %(nodes)d nodes that run are told to end.",
                count,
            )
            % {"instances": instances % running, "nodes": count}
        )
    if waiting:
        effects.append(
            ngettext(
                "%d instance that waits to rerun is cancelled; its cycle keeps the result it has.",
                "%d instances that wait to rerun are cancelled; their cycles keep the results they have.",
                waiting,
            )
            % waiting
        )
    if frozen:
        effects.append(
            ngettext(
                "%d frozen instance is unfrozen and generated as its schedule has it.",
                "%d frozen instances are unfrozen and generated as their schedules have it.",
                frozen,
            )
            % frozen
        )
    kept, lost = _without_success(rerun)
    if kept:
        text = ngettext(
            "%(count)d cycle keeps its earlier result, as its rerun has not succeeded: %(names)s.",
            "%(count)d cycles keep their earlier results, as their reruns have not succeeded: %(names)s.",
            len(kept),
        )
        effects.append(text % {"count": len(kept), "names": in_part(kept)})
    if lost:
        text = ngettext(
            "%(count)d cycle is left without a result; rerun it by hand: %(names)s.",
            "%(count)d cycles are left without a result; rerun them by hand: %(names)s.",
            len(lost),
        )
        effects.append(text % {"count": len(lost), "names": in_part(lost)})
    return [
        *effects,
        _("What has ended stays as it ended."),
        _("It shows terminating until all of that is done, and cannot be resumed."),
    ]


def results_kept(rerun: Rerun) -> list[str]:
    """The cycles whose earlier success becomes effective again when this rerun is terminated, by name."""
    return _without_success(rerun)[0]


def _without_success(rerun: Rerun) -> tuple[list[str], list[str]]:
    """The cycles with an unsuccessful run begun or stopped by `rerun`: with an earlier success, and without."""
    begun = Q(state__in=_UNSUCCESSFUL, instance__isnull=False)
    stopped = Q(state=ItemState.WAITING, action=Action.TERMINATE, original__ended_at__isnull=False)
    items = RerunItem.objects.filter(begun | stopped & ~Q(original__state=CycleState.SUCCESS), rerun=rerun.pk)
    named = list(items.order_by("wave", "pk").values_list("cycle_id", "name", "original__number"))
    # Retention may have removed the original.
    kept = successes_until({cycle: number or 0 for cycle, _name, number in named})
    return (
        [by_clock(name) for cycle, name, _number in named if cycle in kept],
        [by_clock(name) for cycle, name, _number in named if cycle not in kept],
    )


def of_taking_content(rerun: Rerun) -> list[str]:
    """What running the current content will do."""
    lines = [edit_in_words(each) for each in edits_of(rerun)]
    return [*lines, _("Instances already generated keep the content of the submit.")]


def edit_in_words(edit: Edit) -> str:
    """An edit since the submit, and how many instances it would concern."""
    text = ngettext(
        "%(what)s was edited on %(at)s; %(count)d instance may still run it.",
        "%(what)s was edited on %(at)s; %(count)d instances may still run it.",
        edit.instances,
    )
    at = date_format(timezone.localtime(edit.edited_at), "Y-m-d H:i:s")
    what = f"{edit.workflow} / {edit.task}" if edit.task else edit.workflow
    return text % {"what": what, "at": at, "count": edit.instances}


def _stays_frozen(counts: Counts) -> list[str]:
    frozen = counts.frozen
    if not frozen:
        return []
    text = ngettext("%d instance stays frozen.", "%d instances stay frozen.", frozen)
    return [text % frozen]


def of_taking_out(rerun: Rerun, items: Sequence[RerunItem], *, started: int = 0) -> list[str]:
    """What taking `items` out of a rerun will do; as many were ticked with them that have started by now."""
    frozen = [each for each in items if each.action == Action.FREEZE]
    waiting = [each for each in items if each.action != Action.FREEZE]
    effects = []
    if waiting:
        effects.append(
            ngettext(
                "%d instance is not rerun; its cycle keeps the result it has.",
                "%d instances are not rerun; their cycles keep the results they have.",
                len(waiting),
            )
            % len(waiting)
        )
        below = len(_behind(rerun, waiting))
        if below:
            effects.append(
                ngettext(
                    "%d instance that waits for them stays in, and waits for what they waited for.",
                    "%d instances that wait for them stay in, and wait for what they waited for.",
                    below,
                )
                % below
            )
        if readers := readers_of(rerun, [each.cycle_id for each in waiting]):
            text = ngettext(
                "%(count)d instance that stays in reads results that are then not rerun: %(names)s.",
                "%(count)d instances that stay in read results that are then not rerun: %(names)s.",
                len(readers),
            )
            named = in_part([item.title for item, _cycles in readers])
            effects.append(text % {"count": len(readers), "names": named})
    if frozen:
        effects.append(
            ngettext(
                "%d frozen instance is unfrozen and generated as its schedule has it.",
                "%d frozen instances are unfrozen and generated as their schedules have it.",
                len(frozen),
            )
            % len(frozen)
        )
    if started:
        text = ngettext(
            "%d that was ticked has started by now, and stays in.",
            "%d that were ticked have started by now, and stay in.",
            started,
        )
        effects.append(text % started)
    names = ", ".join(each.title for each in items[:NAMED]) + (", …" if len(items) > NAMED else "")
    return [*effects, _("Instances: %s.") % names]


def _behind(rerun: Rerun, items: Sequence[RerunItem]) -> set[int]:
    shape, out = shape_of(rerun), {each.pk for each in items}
    return {pk for each in out for pk in shape.dependants.get(each, ())} - out
