"""What pages show of nodes: their load, how long ago they were heard of, and what they run now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from scheduling.charts import percent
from scheduling.models import Instance, Node
from scheduling.permissions import DRAIN, Rights, User
from scheduling.states import NodeState
from scheduling.views.rows import digest_of
from scheduling.views.scheduler_rows import clock_in_words

# A node reports every second or two; up to here it was heard of "just now", and its row stays as it is.
FRESH = timedelta(seconds=10)
# After this nobody waits for a node any more; the page folds it away.
LONG_GONE = timedelta(days=7)


def load_of(taken: int, slots: int) -> str:
    """The share of `slots` that is taken, as the width of a bar."""
    return percent(taken / slots if slots else 0.0)


def is_long_gone(node: Node, now: datetime) -> bool:
    """Whether nobody waits for `node` any more."""
    silent = node.heartbeat_at is None or now - node.heartbeat_at > LONG_GONE
    return node.state == NodeState.OFFLINE and silent


@dataclass(frozen=True)
class Executed:
    """An instance that a node executes."""

    pk: int
    state: str
    task_name: str
    started_at: datetime | None

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Executed:
        """As `queries.executing_on` found it."""
        started = found["started"]
        started_at = None if started is None else datetime.fromtimestamp(started, UTC)
        return cls(found["pk"], found["state"], found["task"], started_at)


@dataclass(frozen=True)
class NodeRow:
    """A node, how many of its slots are taken and by what, and what this user may do to it."""

    node: Node
    taken: int
    fresh: bool
    long_gone: bool
    may_drain: bool
    may_undrain: bool
    instances: Sequence[Executed] = ()

    @classmethod
    def of(
        cls,
        nodes: Sequence[Node],
        user: User,
        now: datetime,
        instances: Mapping[int, list[Executed]] | None = None,
        taken: Mapping[int, int] | None = None,
    ) -> list[NodeRow]:
        """One row a node, in two queries however many there are (one of them for the user's roles).

        `instances` are those to list with each node, `taken` how many each executes, if that is known.
        """
        if taken is None:
            taken = Instance.objects.count_by_node(nodes)
        rights = Rights(user)
        return [
            cls(
                node=node,
                taken=taken.get(node.pk, 0),
                fresh=node.heartbeat_at is not None and now - node.heartbeat_at < FRESH,
                long_gone=is_long_gone(node, now),
                may_drain=node.state == NodeState.ONLINE and rights.has(DRAIN, node),
                may_undrain=node.drained and rights.has(DRAIN, node),
                instances=(instances or {}).get(node.pk, ()),
            )
            for node in nodes
        ]

    @property
    def mark(self) -> str:
        return f"node-{self.node.pk}"

    @property
    def digest(self) -> str:
        node = self.node
        return digest_of(
            (node.name, node.state, node.slots, node.drained, node.boot_id, node.host),
            (self.taken, self.fresh, self.long_gone, self.may_drain, self.may_undrain),
            # Heard of long ago: when, so that the clock on the page begins anew if that changes.
            None if self.fresh else node.heartbeat_at,
            [(each.pk, each.state) for each in self.instances],
            self.clock,
        )

    @property
    def load(self) -> str:
        return load_of(self.taken, self.node.slots)

    @property
    def clock(self) -> str:
        """How far its clock is from the database's, when that is too far."""
        return "" if self.node.state == NodeState.OFFLINE else clock_in_words(self.node.clock_difference)

    @property
    def slots_in_words(self) -> str:
        text = ngettext("%(taken)s of %(slots)s slot", "%(taken)s of %(slots)s slots", self.node.slots)
        return text % {"taken": self.taken, "slots": self.node.slots}

    @property
    def load_label(self) -> str:
        return _("%(taken)s of %(slots)s slots in use") % {"taken": self.taken, "slots": self.node.slots}

    @property
    def drain_label(self) -> str:
        return _("Drain %(name)s") % {"name": self.node.name}

    @property
    def undrain_label(self) -> str:
        return _("Take %(name)s back") % {"name": self.node.name}

    @property
    def more(self) -> int:
        """How many instances it executes beside those listed."""
        return max(0, self.taken - len(self.instances))
