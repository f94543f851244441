"""What a definition may refer to: the tasks and workflows of the database, or of files that define more."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Protocol

from scheduling.models import Task
from workflows.models import Workflow, WorkflowDependency

# A workflow as its team's name and its own.
type End = tuple[str, str]


class Known(Protocol):
    """Answers of names that definitions use, so that they can be checked before anything is written."""

    def tasks(self, team: str, names: Collection[str]) -> Collection[str]:
        """Those of `names` that are tasks of the team."""

    def cron(self, workflow: End) -> str | None:
        """The cron expression of a workflow, empty when it has none; None when there is no such workflow."""

    def upstreams(self, workflow: End) -> Collection[End]:
        """The other workflows whose cycles a workflow waits for."""

    def dependants(self, workflow: End) -> Collection[End]:
        """The other workflows that wait for a workflow's cycles, and are not being checked themselves."""


class Stored:
    """What the database knows; looked up once, so make it anew for each check."""

    def tasks(self, team: str, names: Collection[str]) -> set[str]:
        return set(Task.objects.filter(team__name=team, name__in=names).values_list("name", flat=True))

    def cron(self, workflow: End) -> str | None:
        return self._crons.get(workflow)

    def upstreams(self, workflow: End) -> Collection[End]:
        return self.ways.get(workflow, ())

    def dependants(self, workflow: End) -> Collection[End]:
        return {dependant for dependant, upstreams in self.ways.items() if workflow in upstreams}

    @cached_property
    def _crons(self) -> Mapping[End, str]:
        found = Workflow.objects.filter(revision__isnull=False)
        return {
            (team, name): cron for team, name, cron in found.values_list("team__name", "name", "revision__cron")
        }

    @cached_property
    def ways(self) -> Mapping[End, Collection[End]]:
        """The upstreams of each workflow that waits for another one."""
        current = WorkflowDependency.objects.filter(revision__current_of__isnull=False).values_list(
            "revision__workflow__team__name",
            "revision__workflow__name",
            "upstream__team__name",
            "upstream__name",
        )
        ways: dict[End, set[End]] = {}
        for team, name, upstream_team, upstream in current:
            if (team, name) != (upstream_team, upstream):
                ways.setdefault((team, name), set()).add((upstream_team, upstream))
        return ways


def reference(team: str, written: str) -> End:
    """The workflow that a definition of `team` names: `name` of the same team, or `team/name`."""
    other, slash, name = written.partition("/")
    return (other, name) if slash else (team, written)


def written_as(team: str, workflow: End) -> str:
    """How a definition of `team` names a workflow; what `reference` reads."""
    other, name = workflow
    return name if other == team else f"{other}/{name}"
