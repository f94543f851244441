"""What pages show of tasks: how their recent runs went, when they are due, whether their schedule is on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from scheduling import charts, words
from scheduling.models import Batch, Task
from scheduling.permissions import EDIT_TASK, RUN, Rights, User
from scheduling.queries import newest_runs
from scheduling.states import BATCH, ListedState
from scheduling.templatetags.tailrace import address, duration, label
from scheduling.templatetags.words import seconds, whole_percent
from scheduling.views.rows import digest_of

# How many recent runs a row's sparkline and figures are over.
RECENT = 20


@dataclass(frozen=True)
class Switch:
    """Whether a task's schedule is on, in the shape in which pages show a state."""

    state: str

    @classmethod
    def of(cls, task: Task) -> Switch:
        return cls("enabled" if task.enabled else "disabled")

    def get_state_display(self) -> str:
        """The state in words."""
        return _("Enabled") if self.state == "enabled" else _("Disabled")


@dataclass(slots=True)
class ShownRun(charts.Run):
    """A run as the charts draw it; `epoch` is when it was begun, in seconds of the epoch."""

    epoch: float

    @property
    def at(self) -> datetime:
        """When it was begun."""
        return datetime.fromtimestamp(self.epoch, UTC)

    @property
    def address(self) -> str:
        """Its page."""
        return address("batch-detail", self.pk)

    def get_state_display(self) -> str:
        """The state in words."""
        return label(ListedState, self.state)

    @property
    def title(self) -> str:
        """The run in words."""
        return _("Batch %(id)d: %(state)s, took %(took)s") % {
            "id": self.pk,
            "state": self.get_state_display(),
            "took": duration(timedelta(seconds=self.took or 0.0)),
        }


def runs_of(tasks: Sequence[Task], *, size: int) -> dict[int, list[ShownRun]]:
    """The `size` newest runs of each of `tasks` (which the user may see), oldest first, in one query."""
    listed = Task.objects.filter(pk__in=[task.pk for task in tasks])
    return {
        pk: [_shown(run) for run in reversed(runs)]
        for pk, runs in newest_runs(listed, Batch.objects.all(), size=size).items()
    }


_ENDED = BATCH.final | {ListedState.STOPPED.value}


def _shown(run: dict[str, Any]) -> ShownRun:
    # An instance that is rerun brings its batch back to running; what it took so far is no duration.
    return ShownRun(run["pk"], run["state"], run["took"] if run["state"] in _ENDED else None, run["created"])


@dataclass(frozen=True)
class Performance:
    """How recent runs went: the share that succeeded, and durations in seconds; None without any."""

    count: int
    rate: float | None
    median: float | None
    p95: float | None

    @classmethod
    def of(cls, runs: Sequence[charts.Run]) -> Performance:
        took = [run.took for run in runs if run.took is not None]
        return cls(
            count=len(runs),
            rate=charts.success_rate([run.state for run in runs]),
            median=charts.quantile(took, 0.5),
            p95=charts.quantile(took, 0.95),
        )


@dataclass(frozen=True)
class Recent:
    """How recent runs went as a row shows it: bars by state, two figures, and both in words."""

    bars: dict[str, str]
    rate: str
    median: str
    label: str

    @classmethod
    def of(cls, runs: Sequence[charts.Run], performance: Performance, label: str) -> Recent:
        """`label` takes `n`, the number of runs, `rate` and `median`."""
        rate, median = whole_percent(performance.rate), seconds(performance.median)
        words = {"n": performance.count, "rate": rate, "median": median}
        said = label % words if performance.rate is not None else _("None has ended yet")
        return cls(charts.sparkline(runs, RECENT), rate, median, said)


@dataclass(frozen=True)
class TaskRow:
    """A task with its recent runs, and what this user may do to it now."""

    task: Task
    runs: list[ShownRun]
    may_run: bool
    may_edit: bool

    @classmethod
    def of(cls, tasks: Sequence[Task], user: User, *, size: int = RECENT) -> list[TaskRow]:
        """One row a task, in two queries however many there are (one of them for the user's roles)."""
        runs = runs_of(tasks, size=size)
        rights = Rights(user)
        return [
            cls(
                task=task,
                runs=runs.get(task.pk, []),
                may_run=task.revision_id is not None and rights.has(RUN, task),
                may_edit=task.revision_id is not None and rights.has(EDIT_TASK, task),
            )
            for task in tasks
        ]

    @property
    def mark(self) -> str:
        return f"task-{self.task.pk}"

    @property
    def digest(self) -> str:
        task = self.task
        return digest_of(
            (task.name, task.enabled, task.group_id, task.revision_id),
            task.due_at and words.until(task.due_at, timezone.now()),
            task.due_at,
            [(run.pk, run.state, run.took) for run in self.runs],
            (self.may_run, self.may_edit),
        )

    @property
    def switch(self) -> Switch:
        return Switch.of(self.task)

    @property
    def last(self) -> ShownRun | None:
        """The newest run."""
        return self.runs[-1] if self.runs else None

    @property
    def trigger(self) -> str:
        """What begins it, in words."""
        return words.of_trigger(self.task.revision) if self.task.revision else ""

    @property
    def recent(self) -> Recent:
        """How its recent runs went."""
        performance = Performance.of(self.runs)
        return Recent.of(
            self.runs,
            performance,
            ngettext(
                "The last run: %(rate)s succeeded, median %(median)s",
                "The last %(n)s runs: %(rate)s succeeded, median %(median)s",
                performance.count,
            ),
        )

    @property
    def run_label(self) -> str:
        return _("Run %(name)s now") % {"name": self.task.name}

    @property
    def switch_label(self) -> str:
        text = _("Disable %(name)s") if self.task.enabled else _("Enable %(name)s")
        return text % {"name": self.task.name}
