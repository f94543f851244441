"""The list view of step 2: a row an instance, a hundred a page, each after all that it waits for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.core.paginator import Page, Paginator

from reruns.candidates import Candidate
from reruns.views.draft_filter import DraftFilter
from reruns.views.draft_words import deed_of, nodes_of
from scheduling import clocks
from scheduling.views.rows import digest_of

PAGE_SIZE = 100


@dataclass(frozen=True)
class ListRow:
    """An instance downstream, or the source, with what becomes of it."""

    candidate: Candidate
    deed: str
    nodes: str
    can_change: bool

    @classmethod
    def of(cls, candidate: Candidate) -> ListRow:
        # What is ticked and cannot be done any more can still be unticked.
        can_change = not candidate.is_source and (candidate.refusal is None or candidate.chosen)
        return cls(candidate, deed_of(candidate), nodes_of(candidate), can_change)

    @property
    def mark(self) -> str:
        return f"cycle-{self.candidate.instance_id}"

    @property
    def digest(self) -> str:
        it = self.candidate
        return digest_of(it.state, it.chosen, self.deed, self.nodes, self.can_change)

    @property
    def clock(self) -> str:
        """The cycle time."""
        return clocks.minute(self.candidate.cycle_time)

    @property
    def why(self) -> str:
        return self.candidate.refusal.text if self.candidate.refusal else ""


@dataclass(frozen=True)
class ListView:
    """A page of rows."""

    page: Page[Candidate]
    rows: list[ListRow]

    @property
    def shown(self) -> str:
        return " ".join(f"{row.mark}:{row.digest}" for row in self.rows)

    def since(self, shown: str) -> list[ListRow]:
        """The rows that a page that shows `shown` has, and that differ from what it shows."""
        pairs = (part.partition(":") for part in shown.split())
        old = {mark: digest for mark, _colon, digest in pairs}
        return [row for row in self.rows if old.get(row.mark, row.digest) != row.digest]


def list_view(filters: DraftFilter, request: Any) -> ListView:
    """The page of what matches that the address asks for, the source first on the first one."""
    found = filters.matching if filters.narrows else [filters.plan.source, *filters.matching]
    page: Page[Candidate] = Paginator(found, PAGE_SIZE).get_page(request.GET.get("page"))
    return ListView(page, [ListRow.of(each) for each in page.object_list])
