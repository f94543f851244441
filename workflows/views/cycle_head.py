"""The head of the page of a cycle instance: what it is, what may be done to it, and why it is not running."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from scheduling import clocks
from scheduling.permissions import User
from scheduling.views.batch import Fact
from scheduling.views.rows import digest_of
from scheduling.views.sections import Section
from workflows import detail_queries as ask
from workflows import why
from workflows.models import CycleInstance
from workflows.permissions import RERUN, STOP
from workflows.views.rows import Entry, entries_of

# What apps above know of a cycle instance.
FACTS: list[Callable[[CycleInstance, User], Iterable[Fact]]] = []


@dataclass(frozen=True)
class CycleHead:
    """A cycle instance with what lies around it, and what this user may do to it now."""

    instance: CycleInstance
    around: ask.Around
    runs: list[CycleInstance]
    facts: list[Fact]
    may_stop: bool
    may_rerun: bool
    may_mark: bool
    may_freeze: bool
    may_unfreeze: bool
    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, instance: CycleInstance, user: User) -> CycleHead:
        """The head of `instance`, which comes from `detail_queries.instances`."""
        rerun, stop = user.has_perm(RERUN, instance), user.has_perm(STOP, instance)
        may = frozenset(name for name, is_so in ((RERUN, rerun), (STOP, stop)) if is_so)
        return cls(
            instance,
            ask.around(instance),
            ask.other_runs(instance),
            [fact for each in FACTS for fact in each(instance, user)],
            may_stop=instance.can_stop and stop,
            may_rerun=rerun and instance.can_rerun and not instance.cycle.holder,
            may_mark=rerun and instance.can_mark_success,
            may_freeze=rerun and instance.can_freeze,
            may_unfreeze=rerun and instance.is_frozen and not instance.holder,
            entries=entries_of(instance, may, instance.revision.timezone),
        )

    @property
    def mark(self) -> str:
        return f"cycle-{self.instance.pk}"

    @property
    def name(self) -> str:
        """The cycle time, with its zone."""
        return clocks.titled(self.instance.cycle_time)

    @property
    def effective(self) -> bool:
        """Whether this run's result is what the cycle left behind."""
        return self.instance.cycle.effective_id == self.instance.pk

    def section(self) -> Section:
        it = self.instance
        times = (it.due_at, it.ready_at, it.started_at, it.ended_at, it.frozen_at)
        may = (self.may_stop, self.may_rerun, self.may_mark, self.may_freeze, self.may_unfreeze, self.entries)
        runs = [(run.pk, run.state) for run in self.runs]
        said = digest_of(
            (it.state, it.stopping, it.reason, it.cycle.effective_id, it.holder, it.cycle.holder),
            (times, may, runs, self.around, self.facts),
        )
        return Section(self.mark, said, {"head": self, "instance": it})


def why_section(instance: CycleInstance, user: User) -> Section:
    """Why it does not run, or did not end well."""
    causes = why.of_cycle(instance, user)
    return Section("why", (instance.state, causes), {"causes": causes})
