"""Stop or rerun many batches in one call. What one of them is refused never drops the others.

>>> services.rerun_all(Batch.objects.failed_between(start, end), reason="the feed was corrected")
297 done, 3 refused
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from django.db import Error, transaction
from django.utils.translation import gettext as _

from scheduling import journal
from scheduling.models import Batch, Node
from scheduling.models.tasks import Overlap
from scheduling.services.batches import BatchRequest, create_batches
from scheduling.services.nodes import give_up_waiting
from scheduling.services.operations import rerun, rerun_request, slots_of_rerun, stop
from scheduling.services.results import MOST_AT_ONCE, Result, attempt, ids_of

# Reruns are made in a few statements for several batches, of at most so many instances in memory.
_BATCHES_TOGETHER = 50
_INSTANCES_TOGETHER = 5000

logger = logging.getLogger("scheduling.bulk")


def stop_all(
    batches: Iterable[Batch], *, by: journal.By = None, reason: str = "", limit: int | None = MOST_AT_ONCE
) -> Result[Batch]:
    """Stop each of `batches` (a QuerySet or any objects) as `stop` does, in a transaction of its own.

    Raises TooMany, and does nothing, when there are more than `limit`; None takes any number.
    """
    # The newest first: stopping an old one would let the next that it holds go, only to stop that too.
    ids = sorted(_ids(batches, limit), reverse=True)
    result: Result[Batch] = Result()
    found = Batch.objects.in_bulk(ids)

    def stop_one(pk: int) -> list[Batch]:
        return [stop(_there(found, pk), by=by, reason=reason)]

    for pk in ids:
        attempt(result, pk, stop_one)
    return result


def rerun_all(
    batches: Iterable[Batch], *, by: journal.By = None, reason: str = "", limit: int | None = MOST_AT_ONCE
) -> Result[Batch]:
    """Rerun each of `batches` (a QuerySet or any objects) as `rerun` does, the oldest first.

    Raises TooMany, and does nothing, when there are more than `limit`; None takes any number.
    """
    ids = sorted(_ids(batches, limit))
    result: Result[Batch] = Result()
    for chunk in _chunks(ids):
        _rerun_chunk(result, chunk, by=by, reason=reason)
    return result


def _ids(batches: Iterable[Batch], limit: int | None) -> list[int]:
    return ids_of(batches, limit, _too_many())


def _too_many() -> str:
    return _("One action takes at most %d batches, and these are more. Narrow the filter, and do it in parts.")


def _there(found: dict[int, Batch], pk: int) -> Batch:
    if pk not in found:
        raise Batch.DoesNotExist
    return found[pk]


# --- reruns, several at a time ---------------------------------------------------------------------


def _chunks(ids: list[int]) -> Iterator[list[int]]:
    totals = dict(Batch.objects.filter(pk__in=ids).values_list("pk", "total"))
    chunk: list[int] = []
    instances = 0
    for pk in ids:
        if chunk and (len(chunk) == _BATCHES_TOGETHER or instances + totals.get(pk, 0) > _INSTANCES_TOGETHER):
            yield chunk
            chunk, instances = [], 0
        chunk.append(pk)
        instances += totals.get(pk, 0)
    if chunk:
        yield chunk


@dataclass
class _Together:
    """Reruns to make in one transaction, by the id of what they rerun, and the nodes that are not online."""

    requests: dict[int, BatchRequest] = field(default_factory=dict)
    absent: dict[int, Node] = field(default_factory=dict)


def _rerun_chunk(result: Result[Batch], chunk: list[int], *, by: journal.By, reason: str) -> None:
    sources = {batch.pk: batch for batch in Batch.objects.for_rerun().filter(pk__in=chunk)}
    together = _Together()

    def alone(pk: int) -> list[Batch]:
        return [rerun(_there(sources, pk), by=by, reason=reason)]

    def prepare(pk: int) -> list[Batch]:
        source = _there(sources, pk)
        slots, absent = slots_of_rerun(source)
        if source.task.revision and source.task.revision.overlap != Overlap.ALLOW:
            # Whether it may begin depends on those before it, one after the other.
            return alone(pk)
        together.requests[pk] = rerun_request(source, slots, held=False, by=by, reason=reason)
        together.absent.update({node.pk: node for node in absent})
        return []

    for pk in chunk:
        attempt(result, pk, prepare)
    try:
        with transaction.atomic():
            result.done += create_batches(list(together.requests.values()))
    except Error:
        # One of them is the cause: alone, the others succeed.
        logger.exception("%d reruns could not be made together; making each alone", len(together.requests))
        for pk in together.requests:
            attempt(result, pk, alone)
        return
    for node in together.absent.values():
        give_up_waiting(node)
