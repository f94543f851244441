"""Nodes: drained and taken back into work."""

from __future__ import annotations

import logging

from django.db import transaction
from django.utils.translation import gettext as _

from scheduling import journal, reasons, transitions
from scheduling.errors import TransitionRefused, is_transient
from scheduling.models import Instance, Node
from scheduling.reasons import said
from scheduling.services.batches import settle_overlap
from scheduling.states import NodeState

logger = logging.getLogger(__name__)


def node_words(node: Node) -> dict[str, str]:
    """A node's name and state in words, for messages."""
    return {"node": node.name, "state": str(node.get_state_display()).lower()}


def drain(node: Node, *, by: journal.By = None, reason: str = "") -> Node:
    """Let a node finish what it runs and claim nothing more; what waits only for it is ended."""
    with transaction.atomic():
        node = _lock_node(node)
        if node.state == NodeState.OFFLINE:
            raise TransitionRefused(
                _("Node %(name)s is offline; only an online node can be drained.") % {"name": node.name}
            )
        if node.drained:
            raise TransitionRefused(
                _("Node %(name)s is draining already; undrain it to let it claim again.") % {"name": node.name}
            )
        transitions.set_drained(node, True)
        changed = transitions.set_node_state(node, NodeState.DRAINING, by=by, reason=reason)
    if changed:
        give_up_waiting(node)
    return node


def undrain(node: Node, *, by: journal.By = None, reason: str = "") -> Node:
    """Let a drained node claim again; one that is offline meanwhile, as soon as it is back."""
    with transaction.atomic():
        node = _lock_node(node)
        if not node.drained:
            raise TransitionRefused(
                _("Node %(node)s is %(state)s; only a draining node can take up work again.") % node_words(node)
            )
        transitions.set_drained(node, False)
        if node.state == NodeState.DRAINING:
            transitions.set_node_state(node, NodeState.ONLINE, by=by, reason=reason)
            transitions.notify(transitions.WORK_CHANNEL, node.group_id)
    return node


def _lock_node(node: Node) -> Node:
    # It may go offline at this very moment, which must not be overwritten.
    nodes = Node.objects.select_for_update(no_key=True, of=("self",)).select_related("group")
    locked: Node = nodes.get(pk=node.pk)
    return locked


def give_up_waiting(node: Node) -> None:
    """End what waits for a node that does not claim and can run nowhere else; settle what was held by it.

    A batch at whose end somebody stumbles stays as it is, and holds up no other.
    """
    reason = said(reasons.NODE_IS, node=node.name, state=node.state)
    waiting = Instance.objects.only_for(node).filter(ended_at__isnull=True)
    tasks = set()
    for batch_id in sorted(set(waiting.values_list("batch_id", flat=True))):
        try:
            ended = transitions.give_up_waiting(node, batch_id, reason=reason)
        except Exception as error:
            if is_transient(error):
                raise
            # What hears of the end of a batch is in the same transaction, and may be anything.
            logger.exception("batch %s cannot be given up", batch_id)
        else:
            tasks |= {ended.task_id} if ended else set()
    for task_id in tasks:
        settle_overlap(task_id)
