"""What narrows step 2: the same for the flow, the list, and what is ticked at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlencode

from django.http import QueryDict
from django.utils.translation import gettext as _

from reruns.candidates import Candidate
from reruns.plans import Plan
from workflows.states import CycleState

FAILED = frozenset({CycleState.FAILED.value, CycleState.TERMINATED.value})
MANY = ("team", "state", "workflow")
LONGEST = 100


@dataclass(frozen=True)
class Option:
    """A value that a filter can take, and how many instances have it."""

    value: str
    word: str
    count: int
    chosen: bool


@dataclass(frozen=True)
class Chip:
    """What narrows the page, and the query without it."""

    label: str
    value: str
    without: str


class DraftFilter:
    """The candidates of a plan as an address narrows them. What is not known matches nothing.

    Instances that the schedule did not make cannot be chosen and are not shown, unless `offline` asks for them.
    """

    def __init__(self, query: QueryDict, plan: Plan) -> None:
        self.plan = plan
        self.view = "list" if query.get("view") == "list" else "flow"
        self.wanted = {name: frozenset(query.getlist(name)) for name in MANY}
        self.text = query.get("q", "").strip()[:LONGEST]
        self.ticked = query.get("ticked", "") if query.get("ticked") in {"yes", "no"} else ""
        self.offline = "offline" in query
        self.kept = [(name, value) for name in MANY for value in query.getlist(name)]
        self.kept += [("q", self.text)] * bool(self.text) + [("ticked", self.ticked)] * bool(self.ticked)
        self.kept += [("offline", "1")] * self.offline

    # --- what matches ------------------------------------------------------------------------------

    @cached_property
    def online(self) -> list[Candidate]:
        """Everything downstream that is shown when nothing narrows it; the source is apart."""
        kinds = set() if self.offline else {"mode"}
        return [
            each
            for each in self.plan.candidates
            if not each.is_source and (each.refusal is None or each.refusal.kind not in kinds)
        ]

    @cached_property
    def matching(self) -> list[Candidate]:
        return [each for each in self.online if self._matches(each)] if self.narrows else self.online

    @cached_property
    def tickable(self) -> list[Candidate]:
        """What of it can be ticked."""
        return [each for each in self.matching if each.refusal is None]

    @cached_property
    def failed(self) -> list[Candidate]:
        return [each for each in self.tickable if each.state in FAILED]

    def _matches(self, candidate: Candidate) -> bool:
        asked = {
            "team": str(candidate.team_id),
            "state": candidate.state,
            "workflow": str(candidate.workflow_id),
        }
        return (
            all(not wanted or asked[name] in wanted for name, wanted in self.wanted.items())
            and (not self.text or self.text.lower() in candidate.name.lower())
            and (not self.ticked or candidate.chosen == (self.ticked == "yes"))
        )

    # --- how it is shown ---------------------------------------------------------------------------

    @property
    def narrows(self) -> bool:
        return any(name != "offline" for name, _value in self.kept)

    @cached_property
    def teams(self) -> list[Option]:
        return self._options("team", lambda each: each.team_id, lambda each: each.team)

    @cached_property
    def states(self) -> list[Option]:
        return self._options("state", lambda each: each.state, lambda each: each.state_label)

    @cached_property
    def workflows(self) -> list[Option]:
        return self._options("workflow", lambda each: each.workflow_id, lambda each: each.workflow)

    def _options(
        self, name: str, value: Callable[[Candidate], Any], word: Callable[[Candidate], str]
    ) -> list[Option]:
        found: dict[Any, list[Candidate]] = {}
        for each in self.online:
            found.setdefault(value(each), []).append(each)
        options = [
            Option(str(key), word(those[0]), len(those), str(key) in self.wanted[name])
            for key, those in found.items()
        ]
        return sorted(options, key=lambda option: option.word)

    @property
    def chips(self) -> list[Chip]:
        words = {
            (name, option.value): option.word
            for name, options in (("team", self.teams), ("state", self.states), ("workflow", self.workflows))
            for option in options
        }
        labels = {"team": _("Team"), "state": _("State"), "workflow": _("Workflow"), "q": _("Name")}
        said = {"yes": _("ticked"), "no": _("not ticked")}
        chips = []
        for name, value in self.kept:
            without = self._query([pair for pair in self.kept if pair != (name, value)])
            if name == "ticked":
                chips.append(Chip("", said[value], without))
            elif name == "offline":
                chips.append(Chip("", _("also what is not online"), without))
            else:
                chips.append(Chip(labels[name], words.get((name, value), value), without))
        return chips

    def _query(self, pairs: list[tuple[str, str]], **more: Any) -> str:
        view = [("view", self.view)] if self.view != "flow" else []
        return urlencode([*view, *pairs, *more.items()])

    @property
    def query(self) -> str:
        """The address of what is shown, without the page."""
        return self._query(self.kept)

    @property
    def with_offline(self) -> str:
        return self._query([*self.kept, ("offline", "1")])

    @property
    def cleared(self) -> str:
        return self._query([])

    def in_view(self, view: str) -> str:
        """The same in the other view."""
        return urlencode([*([("view", view)] if view != "flow" else []), *self.kept])

    @property
    def as_flow(self) -> str:
        return self.in_view("flow")

    @property
    def as_list(self) -> str:
        return self.in_view("list")
