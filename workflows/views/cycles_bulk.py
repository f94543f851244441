"""Stop, freeze, unfreeze, mark and rerun many cycle instances, ticked or all that a filter matches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from django.http import HttpResponse, QueryDict
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_http_methods
from django.views.decorators.vary import vary_on_headers

from config.http import HtmxRequest
from scheduling.views.actions import Option
from scheduling.views.many import Kind, Verb, act, not_now
from workflows import services
from workflows.filters import CycleFilter
from workflows.models import CycleInstance, NodeRun
from workflows.states import CycleState
from workflows.views.impact import discard_label, discards_earlier, earlier_successes, of_readers
from workflows.views.rows import PERMISSIONS, POSSIBLE
from workflows.words import of_holder

_WORKFLOWS_NAMED = 5


@require_http_methods(["GET", "HEAD", "POST"])
@vary_on_headers("HX-Request")
def cycles_act(request: HtmxRequest, verb: str) -> HttpResponse:
    """Do `verb` to many cycle instances, ticked or all that match."""
    return act(request, _CYCLES, VERBS[verb])


# --- what will happen ------------------------------------------------------------------------------


def _of_stop(instances: Sequence[CycleInstance]) -> list[str]:
    running = [each.pk for each in instances if each.state == CycleState.RUNNING]
    waiting = len(instances) - len(running)
    nodes = NodeRun.objects.running().filter(instance__in=running).count() if running else 0
    effects = []
    if running:
        cycles = ngettext(
            "%d running cycle is told to end", "%d running cycles are told to end", len(running)
        ) % len(running)
        effects.append(
            ngettext(
                "%(cycles)s, with the %(nodes)d node that runs; what has not begun of them never does.",
                "%(cycles)s, with the %(nodes)d nodes that run; what has not begun of them never does.",
                nodes,
            )
            % {"cycles": cycles, "nodes": nodes}
        )
    if waiting:
        effects.append(
            ngettext(
                "%d cycle that has not begun never will.", "%d cycles that have not begun never will.", waiting
            )
            % waiting
        )
    again = len(earlier_successes(instances))
    if again:
        text = ngettext(
            "%d of them replaces a success, which becomes effective again.",
            "%d of them replace a success, which becomes effective again.",
            again,
        )
        effects.append(text % again)
    if again < len(instances):
        effects.append(_("What waits for these cycles downstream goes on waiting until they succeed."))
    return [*effects, _by_workflow(instances)]


def _of_freeze(instances: Sequence[CycleInstance]) -> list[str]:
    return [
        ngettext(
            "%d cycle is held back: it does not begin, also when its time has come.",
            "%d cycles are held back: they do not begin, also when their time has come.",
            len(instances),
        )
        % len(instances),
        _("They stay so until somebody unfreezes them; what waits for them downstream waits too."),
        _by_workflow(instances),
    ]


def _of_unfreeze(instances: Sequence[CycleInstance]) -> list[str]:
    return [
        ngettext(
            "%d cycle goes on: it begins when all that it waits for is there.",
            "%d cycles go on: they begin when all that they wait for is there.",
            len(instances),
        )
        % len(instances),
        _by_workflow(instances),
    ]


def _of_mark(instances: Sequence[CycleInstance]) -> list[str]:
    return [
        ngettext(
            "%d cycle counts as a success from now on, although nothing of it runs again.",
            "%d cycles count as a success from now on, although nothing of them runs again.",
            len(instances),
        )
        % len(instances),
        _("What waits for them downstream begins at once if nothing else is missing."),
        *_of_replaced(instances),
        _by_workflow(instances),
    ]


def _of_rerun(instances: Sequence[CycleInstance]) -> list[str]:
    effects = [
        ngettext(
            "%d new instance begins with the content of the one it reruns, without its one-off parameters.",
            "%d new instances begin with the content of those they rerun, without their one-off parameters.",
            len(instances),
        )
        % len(instances)
    ]
    whole = sum(each.state == CycleState.SUCCESS for each in instances)
    if len(instances) > whole:
        effects.append(
            _("Of those that failed or were stopped runs what did not succeed, and what follows it.")
        )
    if whole:
        effects.append(
            ngettext(
                "%d succeeded: all of its nodes run again.",
                "%d succeeded: all of their nodes run again.",
                whole,
            )
            % whole
        )
    succeeded = sum(each.cycle.succeeded for each in instances)
    if succeeded:
        text = ngettext(
            "%d cycle has a success, which becomes effective again when its rerun does not succeed.",
            "%d cycles have a success, which becomes effective again when their reruns do not succeed.",
            succeeded,
        )
        effects.append(text % succeeded)
    return [
        *effects,
        *_of_replaced(instances),
        *of_readers(instances),
        _("Each that succeeds becomes the result of its cycle. What lies downstream of them is not rerun."),
        _by_workflow(instances),
    ]


def _discards_on_rerun(instances: Sequence[CycleInstance]) -> Option | None:
    count = sum(each.cycle.succeeded for each in instances)
    if not count:
        return None
    return Option("discards_earlier", discard_label(count))


def _of_replaced(instances: Sequence[CycleInstance]) -> list[str]:
    """That the cycles of some have a later result, which may be good."""
    count = sum(each.is_replaced for each in instances)
    if not count:
        return []
    text = ngettext(
        "%d of them was replaced: another run of its cycle is effective.",
        "%d of them were replaced: other runs of their cycles are effective.",
        count,
    )
    return [text % count]


def _by_workflow(instances: Sequence[CycleInstance]) -> str:
    counts = Counter(each.workflow.name for each in instances).most_common()
    named = [f"{name} × {count}" for name, count in counts[:_WORKFLOWS_NAMED]]
    rest = len(counts[_WORKFLOWS_NAMED:])
    if rest:
        named.append(ngettext("%d other workflow", "%d other workflows", rest) % rest)
    return _("Workflows: %s.") % ", ".join(named)


def _not_now(instance: CycleInstance) -> str:
    if instance.is_frozen:
        return _("It is frozen.")
    if instance.stopping and not instance.is_finished:
        return _("It is being stopped.")
    return not_now(instance)


def _held(instance: CycleInstance) -> str:
    if instance.is_frozen:
        return _("It is held by %s, which alone can unfreeze it.") % of_holder(instance.holder)
    return _("It is not frozen.")


def _made(done: list[CycleInstance], user: Any, since: Any) -> str:
    query = QueryDict(mutable=True)
    query["cycle"] = ",".join(str(each.pk) for each in done[:100])
    return query.urlencode(safe=",")


# --- in words --------------------------------------------------------------------------------------


def _too_many(count: str, most: int) -> str:
    return _(
        "%(count)s cycle instances match, and one action takes at most %(most)d, so that its answer comes "
        "while you wait and can be read. Narrow the filter, for example to one workflow, and do so in parts."
    ) % {"count": count, "most": most}


def _counted(text: Callable[[int], str]) -> Callable[[int, int], str]:
    """A title of how many are hit of how many there are, from `text` for so many there are."""
    return lambda hit, count: text(count) % {"hit": hit, "count": count}


_CYCLES = Kind(
    name="cycle",
    filters=CycleFilter,
    visible=lambda user: CycleInstance.objects.visible_to(user),
    rows=lambda instances: instances.for_bulk(),
    list_page="cycle-list",
    detail_page="cycle-detail",
    too_many=_too_many,
    none_matches=lambda: _("No cycle instance matches any more."),
    came=lambda count: (
        ngettext(
            "%(came)d more instance matches the filter by now; it was left alone.",
            "%(came)d more instances match the filter by now; they were left alone.",
            count,
        )
        % {"came": count}
    ),
    time="cycle_time",
)

VERBS = {
    "stop": Verb(
        name="stop",
        permission=PERMISSIONS["stop"],
        may=POSSIBLE["stop"],
        perform=services.stop_all,
        title=_counted(
            lambda n: ngettext("Stop %(hit)d of %(count)d cycle", "Stop %(hit)d of %(count)d cycles", n)
        ),
        button=lambda n: ngettext("Stop %d cycle", "Stop %d cycles", n) % n,
        done=lambda n: ngettext("%d cycle is stopped", "%d cycles are stopped", n) % n,
        effects=_of_stop,
        option=discards_earlier,
        none=lambda: _("None of them can be stopped."),
        not_now=lambda each: _not_now(each) if each.stopping or each.is_finished else not_now(each),
        destroys=True,
    ),
    "freeze": Verb(
        name="freeze",
        permission=PERMISSIONS["freeze"],
        may=POSSIBLE["freeze"],
        perform=services.freeze_all,
        title=_counted(
            lambda n: ngettext("Freeze %(hit)d of %(count)d cycle", "Freeze %(hit)d of %(count)d cycles", n)
        ),
        button=lambda n: ngettext("Freeze %d cycle", "Freeze %d cycles", n) % n,
        done=lambda n: ngettext("%d cycle is frozen", "%d cycles are frozen", n) % n,
        effects=_of_freeze,
        none=lambda: _("None of them can be frozen: only what has not begun can."),
        not_now=_not_now,
    ),
    "unfreeze": Verb(
        name="unfreeze",
        permission=PERMISSIONS["unfreeze"],
        may=POSSIBLE["unfreeze"],
        perform=services.unfreeze_all,
        title=_counted(
            lambda n: ngettext("Unfreeze %(hit)d of %(count)d cycle", "Unfreeze %(hit)d of %(count)d cycles", n)
        ),
        button=lambda n: ngettext("Unfreeze %d cycle", "Unfreeze %d cycles", n) % n,
        done=lambda n: ngettext("%d cycle is unfrozen", "%d cycles are unfrozen", n) % n,
        effects=_of_unfreeze,
        none=lambda: _("None of them is frozen, or none may be unfrozen by hand."),
        not_now=_held,
    ),
    "mark-success": Verb(
        name="mark-success",
        permission=PERMISSIONS["mark-success"],
        may=POSSIBLE["mark-success"],
        perform=services.mark_success_all,
        title=_counted(
            lambda n: ngettext(
                "Mark %(hit)d of %(count)d cycle as a success",
                "Mark %(hit)d of %(count)d cycles as a success",
                n,
            )
        ),
        button=lambda n: ngettext("Mark %d cycle", "Mark %d cycles", n) % n,
        done=lambda n: ngettext("%d cycle counts as a success", "%d cycles count as a success", n) % n,
        effects=_of_mark,
        none=lambda: _("None of them failed or was stopped, so there is nothing to mark."),
        not_now=_not_now,
    ),
    "rerun": Verb(
        name="rerun",
        permission=PERMISSIONS["rerun"],
        may=POSSIBLE["rerun"],
        perform=services.rerun_all,
        title=_counted(
            lambda n: ngettext("Rerun %(hit)d of %(count)d cycle", "Rerun %(hit)d of %(count)d cycles", n)
        ),
        button=lambda n: ngettext("Rerun %d cycle", "Rerun %d cycles", n) % n,
        done=lambda n: ngettext("%d new instance has begun", "%d new instances have begun", n) % n,
        effects=_of_rerun,
        option=_discards_on_rerun,
        none=lambda: _("None of them has ended, so none can be rerun."),
        not_now=_not_now,
        made=_made,
        made_link=lambda: _("Show the new instances"),
    ),
}
