"""Parameters of a run with expressions filled in, and its command, script or request.

Computed from the revision and the batch each time a page shows it. Secrets appear as `***`, as in logs: the web
process does not have them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

from scheduling import calendars, kinds, parameters
from scheduling.jobs import JobFailed
from scheduling.models import Batch, Instance
from scheduling.models.tasks import Mode
from scheduling.reasons import in_words


@dataclass(frozen=True)
class Effective:
    """Parameters, built-in values and text of a run; `problem` says why they cannot be filled in."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    builtins: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    problem: str = ""


def of_batch(batch: Batch) -> Effective | None:
    """For the only instance of `batch` (with its revision); None of several, which differ by their shard."""
    if batch.total != 1:
        return None
    shards = batch.revision.shards or [""]
    return _filled(batch, 0, shards[0])


def of_instance(instance: Instance) -> Effective:
    """For `instance` (with its batch and revision)."""
    return _filled(instance.batch, instance.number, instance.shard_parameter)


def _filled(batch: Batch, number: int, shard: str) -> Effective:
    revision = batch.revision
    sharded = revision.mode == Mode.SHARDED
    builtins = parameters.builtins(
        cycle_time=batch.scheduled_for.astimezone(ZoneInfo(batch.timezone or revision.timezone)),
        data_date=batch.data_date or calendars.data_date(revision, batch.scheduled_for),
        batch_id=batch.pk,
        shard_index=number if sharded else 0,
        shard_count=batch.total if sharded else 1,
        shard_param=shard,
    )
    given = {**revision.parameters, **batch.parameters}
    try:
        expanded = parameters.expand(given, builtins)
        text = kinds.kind(revision.kind).rendered(revision.spec, expanded, builtins)
    except (ValueError, LookupError, JobFailed) as error:
        return Effective(given, builtins, problem=in_words(str(error)))
    return Effective(expanded, builtins, text)
