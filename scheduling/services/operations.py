"""Stop and rerun, of a batch and of an instance."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.core.exceptions import ObjectDoesNotExist
from django.db import transaction
from django.utils.translation import gettext as _

from scheduling import journal, transitions
from scheduling.errors import NotAvailable, TransitionRefused
from scheduling.models import Batch, Instance, Node, Task
from scheduling.models.tasks import Overlap, Trigger
from scheduling.services.batches import (
    PREFER_NODE_FOR,
    BatchRequest,
    Slot,
    create_batches,
    held_by_overlap,
    lock_task,
    settle_overlap,
    slots_of,
)
from scheduling.services.nodes import give_up_waiting, node_words
from scheduling.states import NodeState


@contextmanager
def _still_there(thing: Batch | Instance) -> Iterator[None]:
    """Refuse (NotAvailable) when retention removes `thing` at the very moment it is acted on."""
    try:
        yield
    except ObjectDoesNotExist as gone:
        text = (
            _("Batch %(id)s is not there any more; retention removed it.")
            if isinstance(thing, Batch)
            else _("Instance %(id)s is not there any more; retention removed it.")
        )
        raise NotAvailable(text % {"id": thing.pk}) from gone


def stop(batch: Batch, *, by: journal.By = None, reason: str = "") -> Batch:
    """Stop an unfinished batch: what waits never runs, what runs is ended and confirms it.

    Raises TransitionRefused when it has ended or was stopped already, NotAvailable when it is gone.
    """
    with _still_there(batch):
        stopped = transitions.stop_batch(batch.pk, by=by, reason=reason)
    if stopped.is_finished:
        settle_overlap(stopped.task_id)
    return stopped


def stop_instance(instance: Instance, *, by: journal.By = None, reason: str = "") -> Instance:
    """Stop one unfinished instance; the others of its batch go on."""
    with _still_there(instance):
        stopped = transitions.stop_instance(instance.pk, by=by, reason=reason)
    if stopped.batch.is_finished:
        settle_overlap(stopped.batch.task_id)
    return stopped


def rerun(batch: Batch, *, by: journal.By = None, reason: str = "") -> Batch:
    """Run a finished batch again: a new batch with the same content, parameters, due time and nodes.

    A broadcast goes to exactly the nodes of the source; those that are not online are ended with that
    reason, and if none is online nothing is begun (NotAvailable). Other modes prefer the nodes of the
    source and fall back. Raises TransitionRefused when the source has not ended, and
    NotAvailable when it is gone.
    """
    with _still_there(batch), transaction.atomic():
        lock_task(batch.task)
        # From here on retention leaves it alone.
        Batch.objects.select_for_update(no_key=True).only("pk").get(pk=batch.pk)
        source = Batch.objects.for_rerun().get(pk=batch.pk)
        slots, absent = slots_of_rerun(source)
        held = held_by_overlap(source.task)
        [again] = create_batches([rerun_request(source, slots, held=held, by=by, reason=reason)])
    for node in absent:
        give_up_waiting(node)
    if held:
        settle_overlap(source.task_id)
    again.refresh_from_db()
    return again


def slots_of_rerun(source: Batch) -> tuple[list[Slot], list[Node]]:
    """Where the instances of a rerun of `source` go, and which of their own nodes are not online.

    `source` is one of `Batch.objects.for_rerun()`. Raises TransitionRefused or NotAvailable as `rerun` does.
    """
    if not source.can_rerun:
        raise TransitionRefused(
            _("Batch %(id)s has state %(state)s; only a finished batch can be rerun.")
            % {"id": source.pk, "state": source.get_state_display()}
        )
    instances = list(source.instances.all())
    if not instances:
        return slots_of(source.revision, Node.objects.online().filter(group_id=source.group_id)), []
    slots = [
        Slot(
            number=instance.number,
            shard_parameter=instance.shard_parameter,
            node_id=instance.node_id,
            pinned=instance.pinned,
            prefer=not instance.pinned and instance.node is not None,
        )
        for instance in instances
    ]
    absent = [
        instance.node
        for instance in instances
        if instance.pinned and instance.node is not None and instance.node.state != NodeState.ONLINE
    ]
    if len(absent) == len(instances):
        raise NotAvailable(
            _("A broadcast reruns on its own nodes, and none of them is online: %(nodes)s.")
            % {"nodes": ", ".join(node.name for node in absent)}
        )
    return slots, list({node.pk: node for node in absent}.values())


def rerun_request(source: Batch, slots: list[Slot], *, held: bool, by: journal.By, reason: str) -> BatchRequest:
    """The batch that reruns `source`."""
    return BatchRequest(
        task=source.task,
        revision=source.revision,
        trigger=Trigger.MANUAL,
        scheduled_for=source.scheduled_for,
        slots=slots,
        parameters=source.parameters,
        data_date=source.data_date,
        timezone=source.timezone,
        held=held,
        rerun_of=source,
        reason=reason,
        by=by,
    )


def rerun_instance(instance: Instance, *, by: journal.By = None, reason: str = "") -> Instance:
    """Run a finished instance again as a new execution of it; its earlier executions stay.

    A broadcast instance runs only on its own node: if that is not online, nothing is done and
    NotAvailable says so. Others prefer the node that ran them last and fall back to another. It opens its
    batch again if that has ended, so unless the task's overlap policy is to allow, it is refused
    (TransitionRefused) while another batch of the task is unfinished.
    """
    with _still_there(instance):
        return _rerun_instance(instance.pk, by=by, reason=reason)


def _rerun_instance(pk: int, *, by: journal.By, reason: str) -> Instance:
    instance = Instance.objects.select_related("node", "batch__revision", "batch__task").get(pk=pk)
    online = instance.node is not None and instance.node.state == NodeState.ONLINE
    if instance.pinned and not online and instance.node is not None and instance.can_rerun:
        raise NotAvailable(
            _("Node %(node)s is %(state)s, and a broadcast instance reruns only on its own node.")
            % node_words(instance.node)
        )
    with transaction.atomic():
        _refuse_overlap(instance)
        return transitions.rerun_instance(
            instance.pk,
            by=by,
            reason=reason,
            prefer_node_for=PREFER_NODE_FOR if online and not instance.pinned else None,
            retries=instance.batch.revision.retry_count,
        )


def _refuse_overlap(instance: Instance) -> None:
    """Lock the task and refuse what would make a second batch of it run against its overlap policy.

    Nothing can be held back here: the other instances of the batch have ended, and their results stand.
    """
    lock_task(instance.batch.task)
    task = Task.objects.select_related("revision").get(pk=instance.batch.task_id)
    if task.revision is None or task.revision.overlap == Overlap.ALLOW:
        return
    other = Batch.objects.unfinished().filter(task=task).exclude(pk=instance.batch_id).order_by("id").first()
    if other is not None and not Batch.objects.unfinished().filter(pk=instance.batch_id).exists():
        raise TransitionRefused(
            _(
                "Batch %(other)s of task %(name)s is unfinished, and the task's overlap policy does not let "
                "batch %(id)s run beside it. Rerun the instance when that has ended."
            )
            % {"other": other.pk, "name": task.name, "id": instance.batch_id}
        )
