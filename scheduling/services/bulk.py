"""Stop or rerun many batches in one call. What one of them is refused never drops the others.

>>> services.rerun_all(Batch.objects.failed_between(start, end), reason="the feed was corrected")
297 done, 3 refused
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from django.core.exceptions import ObjectDoesNotExist
from django.db import Error, transaction
from django.db.models import QuerySet
from django.utils.translation import gettext as _

from scheduling import journal
from scheduling.errors import SchedulingError, TooMany
from scheduling.models import Batch, Node
from scheduling.models.tasks import Overlap
from scheduling.services.batches import BatchRequest, create_batches
from scheduling.services.nodes import give_up_waiting
from scheduling.services.operations import rerun, rerun_request, slots_of_rerun, stop
from scheduling.services.results import Refused, Result

# The answer must come while the operator waits for it, and every refusal in it be read: five hundred stops,
# each a transaction of its own, take some seconds. It also bounds what one wrong filter can do.
MOST_AT_ONCE = 500

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
        _attempt(result, pk, stop_one)
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
    ends = None if limit is None else limit + 1
    if isinstance(batches, QuerySet):
        ids = list(batches.values_list("pk", flat=True)[:ends])
    else:
        ids = list(dict.fromkeys(batch.pk for batch in batches))[:ends]
    if limit is not None:
        check_count(ids, limit)
    return ids


def check_count(ids: list[int], limit: int = MOST_AT_ONCE) -> None:
    """Raise TooMany when there are more than `limit`."""
    if len(ids) > limit:
        raise TooMany(
            _("One action takes at most %d batches, and these are more. Narrow the filter, and do it in parts.")
            % limit
        )


def _there(found: dict[int, Batch], pk: int) -> Batch:
    if pk not in found:
        raise Batch.DoesNotExist
    return found[pk]


def _attempt(result: Result[Batch], pk: int, act: Callable[[int], list[Batch]]) -> None:
    """Add to `result` what `act` did to the batch `pk`, or why it did not."""
    try:
        result.done += act(pk)
    except SchedulingError as refusal:
        result.refused.append(Refused(pk, str(refusal)))
    except ObjectDoesNotExist:
        result.refused.append(Refused(pk, _("It is not there any more.")))
    except Error:
        # A deadlock, a lost connection: it concerns this one, and the next may well succeed.
        logger.exception("batch %s could not be acted on", pk)
        why = _("The database did not take it, and nothing was changed. Try it again.")
        result.refused.append(Refused(pk, why))


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
        _attempt(result, pk, prepare)
    try:
        with transaction.atomic():
            result.done += create_batches(list(together.requests.values()))
    except Error:
        # One of them is the cause: alone, the others succeed.
        logger.exception("%d reruns could not be made together; making each alone", len(together.requests))
        for pk in together.requests:
            _attempt(result, pk, alone)
        return
    for node in together.absent.values():
        give_up_waiting(node)
