"""What a stop or a rerun will hit, in sentences that the confirm step shows."""

from __future__ import annotations

from collections.abc import Sequence

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from scheduling.models import Batch, Instance, Node
from scheduling.models.tasks import Mode
from scheduling.states import InstanceState, NodeState


def of(verb: str, thing: Batch | Instance) -> list[str]:
    """What `verb` (stop, rerun) will do to `thing` and around it."""
    match verb, thing:
        case "stop", Batch():
            return _stopping(thing)
        case "stop", Instance():
            return _stopping_instance(thing)
        case "rerun", Batch():
            return _rerunning(thing)
        case _, Instance():
            return _rerunning_instance(thing)
    raise ValueError(verb)


def of_several(verb: str, instances: Sequence[Instance]) -> list[str]:
    """What `verb` will do to these instances, of which those it is not possible for are told apart."""
    possible = [each for each in instances if (each.can_stop if verb == "stop" else each.can_rerun)]
    sentences = _stopping_several(possible) if verb == "stop" else _rerunning_several(possible)
    left = len(instances) - len(possible)
    if left:
        sentences.append(
            (
                ngettext(
                    "%d has ended or is being stopped, and stays as it is.",
                    "%d have ended or are being stopped, and stay as they are.",
                    left,
                )
                if verb == "stop"
                else ngettext(
                    "%d has not ended, and goes on as it is.", "%d have not ended, and go on as they are.", left
                )
            )
            % left
        )
    return sentences


def _stopping_several(instances: Sequence[Instance]) -> list[str]:
    running = sum(each.state == InstanceState.RUNNING for each in instances)
    waiting = len(instances) - running
    return [
        sentence for count, sentence in ((running, _running(running)), (waiting, _waiting(waiting))) if count
    ]


def _rerunning_several(instances: Sequence[Instance]) -> list[str]:
    if not instances:
        return []
    sentences = [
        ngettext(
            "%d instance runs again, as a new execution; the earlier ones stay in its history.",
            "%d instances run again, each as a new execution; the earlier ones stay in their history.",
            len(instances),
        )
        % len(instances)
    ]
    away = sorted(
        {
            each.node.name
            for each in instances
            if each.pinned and each.node is not None and each.node.state != NodeState.ONLINE
        }
    )
    if away:
        sentences.append(
            _("Not online, so the instances of a broadcast on them will be refused: %(names)s.")
            % {"names": ", ".join(away)}
        )
    if instances[0].batch.is_finished:
        sentences.append(_("The batch runs again, and is judged anew when they have ended."))
    return sentences


def _stopping(batch: Batch) -> list[str]:
    """How many instances are told to end, never start, or stay as they ended."""
    counts = batch.instances.all().count_by_state()
    running = counts.get(InstanceState.RUNNING, 0)
    waiting = counts.get(InstanceState.WAITING, 0)
    ended = batch.total - running - waiting - counts.get(InstanceState.TERMINATING, 0)
    sentences = [
        (running, _running(running)),
        (waiting, _waiting(waiting)),
        (
            ended,
            ngettext(
                "%d instance has ended and stays as it is.",
                "%d instances have ended and stay as they are.",
                ended,
            )
            % ended,
        ),
    ]
    return [sentence for count, sentence in sentences if count]


def _running(count: int) -> str:
    return (
        ngettext(
            "%d running instance is told to end, and shows terminating until its node confirms that.",
            "%d running instances are told to end, and show terminating until their nodes confirm that.",
            count,
        )
        % count
    )


def _waiting(count: int) -> str:
    return (
        ngettext("%d waiting instance will never start.", "%d waiting instances will never start.", count)
        % count
    )


def _rerunning(batch: Batch) -> list[str]:
    """How many instances begin where, with which content."""
    sentences = [
        ngettext("A new batch begins, with %d instance.", "A new batch begins, with %d instances.", batch.total)
        % batch.total,
        _("It runs revision %(number)d of the task, with the parameters of this batch.")
        % {"number": batch.revision.number},
    ]
    if batch.task.revision_id != batch.revision_id:
        sentences.append(_("The task has been edited since; today's content is not what runs."))
    if batch.revision.mode != Mode.BROADCAST:
        sentences.append(
            _("Each instance prefers the node that ran it, and falls back to another of the group.")
        )
        return sentences
    sentences.append(_("Each instance runs on its own node only."))
    away = list(
        Node.objects.filter(pk__in=batch.instances.values("node"))
        .exclude(state=NodeState.ONLINE)
        .values_list("name", flat=True)
    )
    if away:
        sentences.append(
            ngettext(
                "%(count)d of these nodes is not online, and its instance will not run: %(names)s.",
                "%(count)d of these nodes are not online, and their instances will not run: %(names)s.",
                len(away),
            )
            % {"count": len(away), "names": ", ".join(away)}
        )
    return sentences


def _stopping_instance(instance: Instance) -> list[str]:
    """What happens to the instance and to the rest of its batch."""
    if instance.state == InstanceState.WAITING:
        effects = [_("The instance waits; it will never start.")]
    else:
        effects = [_running(1)]
    unfinished = [InstanceState.WAITING, InstanceState.RUNNING]
    others = instance.batch.instances.filter(state__in=unfinished).exclude(pk=instance.pk).count()
    effects.append(
        ngettext(
            "%d other unfinished instance of the batch goes on.",
            "%d other unfinished instances of the batch go on.",
            others,
        )
        % others
        if others
        else _("No other instance of the batch is unfinished, so the batch ends too.")
    )
    return effects


def _rerunning_instance(instance: Instance) -> list[str]:
    """Which execution begins, where, and what that means for its batch."""
    effects = [
        _("Execution %(number)d of this instance begins; the earlier ones stay in its history.")
        % {"number": instance.executions_count + 1}
    ]
    node = instance.node
    if node is not None and instance.pinned:
        effects.append(_("It runs on node %(node)s only, as it is part of a broadcast.") % {"node": node.name})
        if node.state != NodeState.ONLINE:
            effects.append(
                _("Node %(node)s is %(state)s, so this will be refused.")
                % {"node": node.name, "state": str(node.get_state_display()).lower()}
            )
    elif node is not None:
        effects.append(
            _("It prefers node %(node)s, and falls back to another of the group.") % {"node": node.name}
        )
    if instance.batch.is_finished:
        effects.append(_("The batch runs again, and is judged anew when the instance has ended."))
    return effects
