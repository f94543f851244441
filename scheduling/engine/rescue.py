"""What a person does when a node is dead and the engine has not seen to it, or cannot.

The leading scheduler does all of this by itself within NODE_TIMEOUT seconds of a node's silence. These are
for the night on which there is no scheduler either, or a node that is known to be dead sooner.

Nobody saw what ran there end, so it ends as failed: say `confirmed=True` only when its processes are known
to be gone, which makes of a stop that was asked a stop that was obeyed.
"""

from __future__ import annotations

from django.conf import settings
from django.utils.translation import gettext as _

from config import clock
from scheduling import journal, reasons, transitions
from scheduling.engine import recovery
from scheduling.errors import TransitionRefused
from scheduling.models import Instance, Node
from scheduling.services import settle_overlap
from scheduling.states import NodeState, Outcome


def release_node(
    node: Node,
    *,
    by: journal.By = None,
    reason: str = "",
    confirmed: bool = False,
    even_if_heard: bool = False,
) -> Node:
    """Take everything from a dead node: its work goes to others, or ends if only it could do it.

    Raises TransitionRefused when the node was heard of within NODE_TIMEOUT seconds; `even_if_heard` does it
    all the same, for one that answers and does nothing. What it still runs is fenced: it may go on, but
    its reports change nothing.
    """
    node = Node.objects.select_related("group").get(pk=node.pk)
    if not even_if_heard:
        _refuse_if_heard(node)
    said = reasons.said_with(
        reasons.NODE_GIVEN_UP,
        reasons.NODE_GIVEN_UP_WHY,
        reason,
        node=node.name,
        who=journal.actor(by).name,
    )
    if node.state == NodeState.OFFLINE:
        recovery.finish_absent_nodes()
        journal.record("given_up", node, by, reason=reason, details={"confirmed": False})
    else:
        recovery.node_gone(node, reason=said, confirmed=confirmed, by=by)
    node.refresh_from_db()
    return node


def give_up_instance(
    instance: Instance, *, by: journal.By = None, reason: str = "", confirmed: bool = False
) -> Instance:
    """End a running or terminating instance whose node is dead, as failed; it is not retried.

    With `confirmed` (its processes are known to be gone) one that was being stopped ends as terminated.
    Raises TransitionRefused when nothing of it runs, or its node was heard of within NODE_TIMEOUT seconds.
    """
    instance = Instance.objects.select_related("batch", "node").get(pk=instance.pk)
    live = instance.executions.live().first()
    if live is None or instance.node is None:
        raise TransitionRefused(
            _("Instance %(id)s has state %(state)s; only one that runs or is being stopped can be given up.")
            % {"id": instance.pk, "state": instance.get_state_display()}
        )
    _refuse_if_heard(instance.node)
    who = journal.actor(by).name
    said = reasons.said_with(reasons.GIVEN_UP, reasons.GIVEN_UP_WHY, reason, who=who, node=instance.node.name)
    ended = transitions.end(
        batch=instance.batch_id,
        instance=instance.pk,
        execution=live.pk,
        token=live.token,
        outcome=Outcome.LOST,
        error=said,
        reason=said,
        confirmed=confirmed,
        may_retry=False,
    )
    instance.refresh_from_db()
    if ended is not None:
        journal.record("given_up", instance, by, reason=reason, details={"confirmed": confirmed})
        if ended.batch_ended:
            settle_overlap(instance.batch.task_id)
    return instance


def _refuse_if_heard(node: Node) -> None:
    patience = settings.TAILRACE["NODE_TIMEOUT"]
    heard = node.heartbeat_at
    if node.state == NodeState.OFFLINE or heard is None:
        return
    ago = (clock.now() - heard).total_seconds()
    if ago < patience:
        raise TransitionRefused(
            _(
                "Node %(name)s was heard of %(ago)d s ago, so it lives. Stop it there, drain it, or wait until"
                " it has been silent for %(patience)d s."
            )
            % {"name": node.name, "ago": ago, "patience": patience}
        )
