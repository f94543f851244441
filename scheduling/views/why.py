"""Why a batch or an instance is as it is, in sentences, each with a link to what it speaks of."""

from __future__ import annotations

from dataclasses import dataclass

from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from scheduling.models import Batch, Execution, Instance, Node
from scheduling.models.tasks import Overlap
from scheduling.reasons import in_words
from scheduling.states import BatchState, InstanceState, NodeState

NODES_NAMED = 5


@dataclass(frozen=True)
class Why:
    """A sentence; `link` leads to what it speaks of, under the words `label`."""

    text: str
    link: str = ""
    label: str = ""


def of_batch(batch: Batch) -> list[Why]:
    """Why `batch` (from `for_page`) failed, waits, is held or is not ended yet; nothing when all is well."""
    found = [Why(in_words(batch.reason))] if batch.reason else []
    match batch.state:
        case BatchState.FAILED | BatchState.SUCCESS:
            return found + _judged(batch)
        case BatchState.TERMINATING:
            return found + _unconfirmed(batch)
        case BatchState.WAITING | BatchState.RUNNING if batch.held:
            return [*found, _held(batch)]
        case BatchState.WAITING | BatchState.RUNNING:
            waiting = batch.instances.waiting().select_related("node").first()
            return found + ([_not_started(waiting)] if waiting else [])
        case _:
            return found


def of_instance(instance: Instance, executions: list[Execution]) -> list[Why]:
    """Why `instance` (with its batch and node) failed, waits or is not ended yet; latest execution first."""
    found = [Why(in_words(instance.reason))] if instance.reason else []
    match instance.state:
        case InstanceState.WAITING if instance.batch.held:
            return [*found, _held(instance.batch)]
        case InstanceState.WAITING:
            return [*found, _not_started(instance)]
        case InstanceState.FAILED | InstanceState.TIMED_OUT if executions:
            error = in_words(executions[0].error)
            if error and error != in_words(instance.reason):
                found.append(Why(error))
            return [*found, Why("", "#log-card", _("Read its log"))]
        case InstanceState.TERMINATING if instance.node is not None:
            text = _("Node %(node)s was told to end it and has not confirmed that yet.")
            return [*found, _at_nodes(text % {"node": instance.node.name})]
        case _:
            return found


def _judged(batch: Batch) -> list[Why]:
    if batch.succeeded == batch.total or not batch.total:
        return []
    share = 100 * batch.succeeded / batch.total
    words = {
        "done": batch.succeeded,
        "total": batch.total,
        "share": f"{share:.0f}",
        "need": batch.success_ratio,
    }
    text = (
        _("%(done)d of %(total)d instances succeeded, which is %(share)s %%; %(need)d %% are needed.") % words
    )
    states = [
        state
        for state, count in (
            ("failed", batch.failed),
            ("timed_out", batch.timed_out),
            ("terminated", batch.terminated),
        )
        if count
    ]
    query = "&".join(f"state={state}" for state in states)
    return [Why(text, f"{_page(batch)}?{query}", _("Show those that did not succeed"))]


def _unconfirmed(batch: Batch) -> list[Why]:
    nodes = batch.instances.unconfirmed_by_node()
    if not nodes:
        return []
    count = sum(nodes.values())
    names = ", ".join(sorted(nodes)[:NODES_NAMED]) + (", …" if len(nodes) > NODES_NAMED else "")
    text = ngettext(
        "%(count)d instance was told to end, and its node has not confirmed that yet: %(names)s.",
        "%(count)d instances were told to end, and their nodes have not confirmed that yet: %(names)s.",
        count,
    ) % {"count": count, "names": names}
    return [Why(text, f"{_page(batch)}?state=terminating", _("Show them"))]


def _held(batch: Batch) -> Why:
    ahead = Batch.objects.in_front_of(batch).first()
    overlap = batch.task.revision.overlap if batch.task.revision else Overlap.QUEUE
    policy = Overlap(overlap).label
    if ahead is None:
        return Why(_("Held by the overlap policy %(policy)s; it is about to go on.") % {"policy": policy})
    text = _("Held: batch %(id)d of the same task is unfinished (overlap policy %(policy)s).")
    link = Why(text % {"id": ahead.pk, "policy": str(policy).lower()}, _page(ahead))
    return Why(link.text, link.link, _("Open batch %(id)d") % {"id": ahead.pk})


def _not_started(instance: Instance) -> Why:
    now = timezone.now()
    node = instance.node
    if instance.run_after is not None and instance.run_after > now:
        moment = timezone.localtime(instance.run_after)
        return Why(_("Waits for its retry interval, until %(time)s.") % {"time": f"{moment:%H:%M:%S}"})
    if instance.pinned and node is not None and node.state != NodeState.ONLINE:
        where = {"node": node.name, "state": str(node.get_state_display()).lower()}
        return _at_nodes(_("Waits for node %(node)s, which is %(state)s; it can run nowhere else.") % where)
    capacity = Node.objects.filter(group=instance.group_id).capacity(Instance.objects.all())
    words: dict[str, str | int] = {"group": instance.batch.group.name}
    if not capacity.nodes:
        return _at_nodes(_("No node of the group %(group)s is online.") % words)
    if capacity.taken >= capacity.slots:
        text = _("Waits for a free slot: %(taken)d of %(slots)d slots of the group %(group)s are taken.")
        words |= {"taken": capacity.taken, "slots": capacity.slots}
        link = f"{reverse('batch-list')}?group={instance.batch.group.name}&state=running"
        return Why(text % words, link, _("What runs there"))
    if instance.prefers_node_until and instance.prefers_node_until > now and node is not None:
        return Why(_("Waits a moment for node %(node)s, which it prefers.") % {"node": node.name})
    return Why(_("Waits for a node to take it; free slots are there."))


def _page(batch: Batch) -> str:
    return reverse("batch-detail", args=[batch.pk])


def _at_nodes(text: str) -> Why:
    try:
        return Why(text, reverse("node-list"), _("The nodes"))
    except NoReverseMatch:
        return Why(text)
