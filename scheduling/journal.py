"""Who did what: every operator action and batch transition is recorded beside the change it describes."""

from __future__ import annotations

import getpass
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db.models import Model
from django.utils import timezone

from scheduling import bulk
from scheduling.models import JournalEntry
from scheduling.models.journal import Via


@dataclass(frozen=True)
class Actor:
    """Someone, or a part of the engine, who acts."""

    name: str
    via: str
    user_id: int | None = None


SCHEDULE = Actor("schedule", Via.ENGINE)
ENGINE = Actor("engine", Via.ENGINE)

type By = AbstractBaseUser | AnonymousUser | Actor | str | None

_via: ContextVar[str] = ContextVar("via", default=Via.SHELL)


@contextmanager
def acting_via(via: str) -> Iterator[None]:
    """Whatever is done inside the block was asked from `via` (a page, the shell, the engine)."""
    previous = _via.set(via)
    try:
        yield
    finally:
        _via.reset(previous)


def actor(by: By) -> Actor:
    """The Actor that `by` names; without one, the operating system's user."""
    if isinstance(by, Actor):
        return by
    if isinstance(by, str):
        return Actor(by, _via.get())
    if by is None or not by.is_authenticated:
        return Actor(f"os:{getpass.getuser()}", _via.get())
    return Actor(by.get_username(), _via.get(), by.pk)


def entry(
    action: str, thing: Model, by: By, *, reason: str = "", details: dict[str, Any] | None = None
) -> JournalEntry:
    """An unsaved journal entry about `thing`."""
    who = actor(by)
    return JournalEntry(
        at=timezone.now(),
        action=action,
        object_type=thing._meta.model_name or "",
        object_id=thing.pk,
        object_name=_name(thing),
        team_id=_team(thing),
        task_id=_task(thing),
        user_id=who.user_id,
        actor=who.name,
        via=who.via,
        reason=reason,
        details=details or {},
    )


def record(
    action: str, thing: Model, by: By, *, reason: str = "", details: dict[str, Any] | None = None
) -> None:
    """Write one entry about `thing`; call it in the transaction of the change."""
    entry(action, thing, by, reason=reason, details=details).save(force_insert=True)


def record_all(entries: Iterable[JournalEntry]) -> None:
    bulk.insert(list(entries), keys=False)


def _name(thing: Any) -> str:
    match thing._meta.model_name:
        case "batch":
            return str(thing.task.name)
        case "instance":
            return f"{thing.batch.task.name} [{thing.number}]"
        case _:
            return str(getattr(thing, "stored_name", None) or getattr(thing, "name", thing))


def _team(thing: Any) -> int | None:
    match thing._meta.model_name:
        case "team":
            return int(thing.pk)
        case "node":
            return int(thing.group.team_id)
        case "instance":
            return int(thing.batch.team_id)
        case _:
            return getattr(thing, "team_id", None)


def _task(thing: Any) -> int | None:
    match thing._meta.model_name:
        case "task":
            return int(thing.pk)
        case "instance":
            return int(thing.batch.task_id)
        case _:
            return getattr(thing, "task_id", None)
