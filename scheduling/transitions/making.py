"""How batches come to be with their instances, and how a worker that is about to be free takes one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from psycopg.types.json import Jsonb

from scheduling.transitions.statements import execute_all


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to start one instance, until its lease ends or another claim has another token."""

    instance: int
    batch: int
    token: UUID
    timeout: int | None


@dataclass(slots=True)
class Offer:
    """A worker of a node that is free as soon as the transaction is through.

    It may take one of the instances that are made in the transaction: that is `claim` then. What follows from
    the end of its last one need not go through the queue.
    """

    node_id: int
    boot_id: UUID
    group_id: int
    worker: int
    claim: Claim | None = None


_offer: ContextVar[Offer | None] = ContextVar("offer", default=None)


@contextmanager
def offering(offer: Offer | None) -> Iterator[None]:
    """In the block, `make` may let the worker behind `offer` take an instance. One transaction lies inside."""
    before = _offer.set(offer)
    try:
        yield
    finally:
        _offer.reset(before)


@dataclass(slots=True)
class Making:
    """Batches to be made, as rows of `tailrace_make`; `batches[position]["group"]` is where its slots run."""

    batches: list[dict[str, Any]] = field(default_factory=list)
    slots: list[dict[str, Any]] = field(default_factory=list)


_MAKE = """
SELECT batch_id, taken FROM tailrace_make(
    %(batches)s, %(slots)s, %(wake)s::bigint[], %(prefer)s,
    %(node)s, %(boot)s, %(group)s, %(lease)s, %(wake_unless_taken)s
)
"""


def make(making: Making, *, prefer_seconds: float, timeouts: Sequence[int | None]) -> list[int]:
    """Make batches, their instances and their journal entries; the ids of the batches, in their order.

    `prefer_seconds`: how long instances that prefer a node wait for it. `timeouts`, by position, are the
    instances' own, for a worker that takes one. Raises Django's IntegrityError or DataError, and then nothing
    was made; call it in a transaction.
    """
    if not making.batches:
        return []
    offer = _offer.get()
    taken = _takeable(making, offer) if offer is not None and offer.claim is None else None
    slots_of_group: dict[int, int] = {}
    for slot in making.slots:
        group = making.batches[slot["of"]]["group"]
        slots_of_group[group] = slots_of_group.get(group, 0) + 1
    spared = None
    token = uuid4()
    if offer is not None and taken is not None:
        taken["take"] = str(token)
        spared = offer.group_id if slots_of_group[offer.group_id] == 1 else None
    rows = execute_all(
        _MAKE,
        {
            "batches": Jsonb(making.batches),
            "slots": Jsonb(making.slots),
            "wake": sorted(group for group in slots_of_group if group != spared),
            "prefer": prefer_seconds,
            "node": offer.node_id if offer and taken else None,
            "boot": offer.boot_id if offer and taken else None,
            "group": offer.group_id if offer and taken else None,
            "lease": float(settings.TAILRACE["CLAIM_SECONDS"]),
            "wake_unless_taken": spared is not None,
        },
    )
    if offer is not None:
        for row, timeout in zip(rows, timeouts, strict=True):
            if row.taken is not None:
                offer.claim = Claim(row.taken, row.batch_id, token=token, timeout=timeout)
    return [row.batch_id for row in rows]


def _takeable(making: Making, offer: Offer) -> dict[str, Any] | None:
    """The new slot that the queue would give the offer's node first; None if that has limits of its own."""

    def may_claim(slot: Mapping[str, Any]) -> bool:
        batch = making.batches[slot["of"]]
        here = not slot["pinned"] or slot["node"] == offer.node_id
        return here and batch["group"] == offer.group_id and not batch["held"]

    able = (slot for slot in making.slots if may_claim(slot))
    first = max(able, key=lambda slot: making.batches[slot["of"]]["priority"], default=None)
    if first is None or first["pinned"] or first["prefer"] or making.batches[first["of"]]["shard_concurrency"]:
        return None
    return first
