"""Cycle instances as ranges of an index: see docs/decisions/0007."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from scheduling.queries import Ranges

# The run type of nearly all; written here since models ask queries, and these ask this.
SCHEDULED = "online"


@dataclass(frozen=True, kw_only=True)
class CycleRanges(Ranges):
    """Cycle instances by "team" or "workflow" and state, in a span of cycle times.

    `frozen` says whether only those that are, or only those that are not; `ready_since` and `ready_until` when
    they became ready. Both are looked at row by row. So are states where `also` asks for run types that the
    schedule does not make: of those there are few, in an index of their own.
    """

    TABLE = "workflows_cycleinstance"
    TIME = "cycle_time"
    COLUMNS: ClassVar = {"team": "team_id", "workflow": "workflow_id", "run_type": "run_type"}

    frozen: bool | None = None
    ready_since: datetime | None = None
    ready_until: datetime | None = None

    def of(self, place: str, span: str, order: str) -> tuple[str, str]:
        run_types = self.also.get("run_type", (SCHEDULED,))
        if SCHEDULED in run_types:
            values, rows = super().of(place, span, order)
        else:
            values = f"unnest(%({place})s::bigint[]) place, unnest(%(also_run_type)s::text[]) kind"
            rows = (
                f"{self.rows} {self.COLUMNS[place]} = place AND run_type = kind AND run_type <> '{SCHEDULED}'"
                f" AND state = ANY(%(states)s) {span} {self._also(but='run_type')}"
            )
        if self.frozen is not None:
            rows += f" AND frozen_at IS {'NOT ' if self.frozen else ''}NULL"
        if self.ready_since is not None:
            rows += " AND ready_at >= %(ready_since)s"
        if self.ready_until is not None:
            rows += " AND ready_at < %(ready_until)s"
        return values, rows

    def facts(self) -> dict[str, Any]:
        return super().facts() | {"ready_since": self.ready_since, "ready_until": self.ready_until}
