"""Which instances a rerun may take, what it would do to each, and why not otherwise: said in words.

Words are made only for what is shown: a refusal keeps what it is about, and is the same object for all of a
kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from reruns.affected import NodeRow
from reruns.models import Action
from reruns.states import RerunState
from scheduling import clocks
from workflows.states import CycleState

# What becomes of an instance in each state; what has not ended is admitted by freeze mode alone.
ACTIONS: Mapping[str, str] = {
    CycleState.SUCCESS.value: Action.RERUN.value,
    CycleState.FAILED.value: Action.RERUN.value,
    CycleState.TERMINATED.value: Action.RERUN.value,
    CycleState.READY.value: Action.TERMINATE.value,
    CycleState.RUNNING.value: Action.TERMINATE.value,
    CycleState.NOT_READY.value: Action.FREEZE.value,
}


@dataclass(frozen=True)
class Refusal:
    """Why an instance cannot be chosen. `rerun` is the one that it is about, where it is about another rerun.

    `kind` is one of mode, ready_time, state, not_generated, held, frozen, permission, nodes, freeze_mode.
    """

    kind: str
    said: Any = field(repr=False)
    """The sentence, translated when it is read, with the names of `values` in it."""
    brief: Any = field(repr=False)
    """The same in few words, without what changes by itself."""
    values: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)
    rerun: int | None = None

    @property
    def text(self) -> str:
        return str(self.said) % {name: _in_words(value) for name, value in self.values.items()}

    @property
    def in_short(self) -> str:
        return str(self.brief) % {name: _in_words(value) for name, value in self.values.items()}

    def __str__(self) -> str:
        return self.text


def _in_words(value: Any) -> str:
    if isinstance(value, datetime):
        return clocks.titled(value)
    return str(value)


# --- when the source got ready -------------------------------------------------------------------------


def opens_at(now: datetime, zone: ZoneInfo) -> datetime:
    """Yesterday 00:00 on the clocks of `zone`: what got ready before is too old to begin at."""
    yesterday = now.astimezone(zone).date() - timedelta(days=1)
    return datetime.combine(yesterday, time.min, tzinfo=zone)


def ready_time_refusal(ready_at: datetime | None, now: datetime, zone: ZoneInfo) -> Refusal | None:
    """Why a rerun cannot begin at an instance that got ready then."""
    if ready_at is None:
        return Refusal(
            "ready_time",
            gettext_lazy(
                "It has not been ready yet, so nothing was made from its data. Choose one that has run."
            ),
            gettext_lazy("has not been ready yet"),
        )
    opens = opens_at(now, zone)
    if opens <= ready_at <= now:
        return None
    return Refusal(
        "ready_time",
        gettext_lazy(
            "It got ready at %(ready)s. A rerun downstream can begin only at an instance that got ready "
            "since %(opens)s (yesterday 00:00 in %(zone)s); rerun this one by itself, or backfill."
        ),
        gettext_lazy("got ready before yesterday 00:00"),
        {"ready": ready_at, "opens": opens, "zone": zone.key},
    )


# --- the instance itself -------------------------------------------------------------------------------

NOT_ONLINE = Refusal(
    "mode",
    gettext_lazy("It is offline or a test; only instances of online scheduling can be rerun here."),
    gettext_lazy("offline or a test"),
)
NOT_GENERATED = Refusal(
    "not_generated",
    gettext_lazy("It has no instance: it was not generated yet, or its record was removed."),
    gettext_lazy("has no instance"),
)
NOT_DOWNSTREAM = Refusal(
    "not_generated",
    gettext_lazy("It does not depend on what is rerun, so it is not downstream of it."),
    gettext_lazy("is not downstream any more"),
)


def state_refusal(state: str) -> Refusal:
    """What is in this state can never be rerun."""
    return Refusal(
        "state",
        gettext_lazy("Its state is %(state)s; there is nothing to rerun."),
        "%(state)s",
        {"state": CycleState(state).label},
    )


def not_effective_refusal(effective: int | None) -> Refusal:
    """Another run of the cycle counts by now."""
    if effective is None:
        return NOT_GENERATED
    return Refusal(
        "state",
        gettext_lazy("Instance %(id)s of the same cycle counts by now; begin at that one."),
        gettext_lazy("instance %(id)s counts by now"),
        {"id": effective},
    )


def freeze_mode_refusal(state: str) -> Refusal:
    """What is in this state can be chosen in freeze mode only."""
    does = {
        Action.FREEZE.value: gettext_lazy(
            "It is not ready. Switch on freeze mode to freeze it until the rerun succeeded."
        ),
        Action.TERMINATE.value: gettext_lazy(
            "It has not ended (%(state)s). Switch on freeze mode to terminate it and rerun it then."
        ),
    }
    return Refusal(
        "freeze_mode",
        does[ACTIONS[state]],
        gettext_lazy("%(state)s, which needs freeze mode"),
        {"state": CycleState(state).label},
    )


def frozen_refusal(by: str, at: datetime, why: str) -> Refusal:
    """Somebody froze it, who must let it go first."""
    said = (
        gettext_lazy("It was frozen by %(by)s on %(at)s: %(why)s. It has to be unfrozen first.")
        if why
        else gettext_lazy("It was frozen by %(by)s on %(at)s. It has to be unfrozen first.")
    )
    return Refusal(
        "frozen", said, gettext_lazy("frozen by %(by)s"), {"by": by, "at": at, "why": why.rstrip(".")}
    )


_STANDS_STILL = frozenset({RerunState.PAUSED.value, RerunState.FAILED.value})


@dataclass(frozen=True)
class Holder:
    """An active rerun that holds cycles: by whom, since when, and how much has succeeded (0 to 100)."""

    pk: int
    actor: str
    since: datetime
    percent: int
    state: str

    def __str__(self) -> str:
        return f"R-{self.pk}"

    @property
    def stands_still(self) -> str:
        """Its state in words when it does not end by itself; else empty."""
        return str(RerunState(self.state).label) if self.state in _STANDS_STILL else ""

    def refusal(self) -> Refusal:
        said = (
            gettext_lazy(
                "It is in rerun %(rerun)s, submitted by %(by)s on %(since)s, which is done to %(percent)s %% "
                "and stands still (%(state)s). Resume that one, or terminate it."
            )
            if self.stands_still
            else gettext_lazy(
                "It is in rerun %(rerun)s, submitted by %(by)s on %(since)s and done to %(percent)s %%. "
                "Wait for its end, or terminate it."
            )
        )
        return Refusal(
            "held",
            said,
            gettext_lazy("in rerun %(rerun)s"),
            {
                "rerun": self,
                "by": self.actor,
                "since": self.since,
                "percent": self.percent,
                "state": RerunState(self.state).label,
            },
            rerun=self.pk,
        )


# --- who may -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Content:
    """The nodes of one revision, and which of them somebody may rerun."""

    nodes: tuple[NodeRow, ...]
    permitted: tuple[str, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(node.key for node in self.nodes)

    @property
    def lacking(self) -> tuple[NodeRow, ...]:
        allowed = set(self.permitted)
        return tuple(node for node in self.nodes if node.key not in allowed)

    @cached_property
    def is_whole(self) -> bool:
        """Whether all of it may be rerun."""
        return len(self.permitted) == len(self.nodes)

    @cached_property
    def edited_at(self) -> datetime | None:
        """When the workflow, or what a task of it does today, was last edited."""
        return max((node.edited_at for node in self.nodes), default=None)

    def allows(self, keys: tuple[str, ...]) -> bool:
        """Whether all of `keys`, or of all nodes when there are none, may be rerun."""
        return self.is_whole or (bool(keys) and set(keys) <= set(self.permitted))

    def unknown(self, keys: tuple[str, ...]) -> list[str]:
        """Which of `keys` it has no node for."""
        return sorted(set(keys) - {*self.keys})

    def refusal(self, action: str) -> Refusal | None:
        """Why nobody without more rights may do `action` to an instance of this content."""
        if self.is_whole or (action == Action.RERUN and self.permitted):
            return None
        teams = ", ".join(sorted({node.team for node in self.lacking}))
        if not self.permitted:
            said: Any = gettext_lazy("You have no permission to rerun its tasks. Ask an owner of %(teams)s.")
        elif action == Action.FREEZE:
            said = gettext_lazy(
                "To freeze it you need permission to rerun all of its tasks; you have none for %(nodes)s. "
                "Ask an owner of %(teams)s."
            )
        else:
            said = gettext_lazy(
                "To terminate it you need permission to rerun all of its tasks; you have none for %(nodes)s. "
                "Ask an owner of %(teams)s."
            )
        values = {"teams": teams, "nodes": in_part([node.key for node in self.lacking])}
        return Refusal("permission", said, gettext_lazy("no permission of %(teams)s"), values)

    def nodes_refusal(self, keys: tuple[str, ...]) -> Refusal:
        """Some of the nodes that were chosen may not be rerun."""
        lacking = [node for node in self.lacking if not keys or node.key in keys]
        return Refusal(
            "permission",
            gettext_lazy("You have no permission to rerun its nodes %(nodes)s. Ask an owner of %(teams)s."),
            gettext_lazy("no permission for %(nodes)s"),
            {
                "nodes": in_part([node.key for node in lacking]),
                "teams": ", ".join(sorted({node.team for node in lacking})),
            },
        )


NO_CONTENT = Content((), ())
NAMED = 5


def in_part(names: list[str], most: int = NAMED) -> str:
    """The first few names and how many more there are: `a, b and 3 more`."""
    if len(names) <= most:
        return ", ".join(names)
    more = len(names) - most
    return ngettext("%(names)s and %(count)d more", "%(names)s and %(count)d more", more) % {
        "names": ", ".join(names[:most]),
        "count": more,
    }


def nodes_gone_refusal(keys: list[str]) -> Refusal:
    """Nodes that were chosen are not in the workflow any more."""
    return Refusal(
        "nodes",
        gettext_lazy("Its workflow was edited and has no node %(nodes)s any more; choose its nodes again."),
        gettext_lazy("has no node %(nodes)s any more"),
        {"nodes": in_part(keys)},
    )


def unknown_nodes(name: str, keys: list[str]) -> str:
    return _("%(name)s has no node %(nodes)s.") % {"name": name, "nodes": ", ".join(keys)}
