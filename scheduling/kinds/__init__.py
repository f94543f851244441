"""The kinds of jobs: ours, and those that an installation adds by `TAILRACE["KINDS"]`."""

from __future__ import annotations

import difflib
import functools
import re
from typing import Any

from scheduling.kinds.base import Kind, SpecErrors

__all__ = ["Kind", "SpecErrors", "UnknownKind", "kind", "kinds"]

_OURS = (
    "scheduling.kinds.python.PythonKind",
    "scheduling.kinds.shell.ShellKind",
    "scheduling.kinds.sql.SqlKind",
    "scheduling.kinds.http.HttpKind",
)
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


class UnknownKind(LookupError):
    """No kind has this name; the message lists those there are."""


def kind(name: str) -> Kind:
    """The kind called `name`. Raises UnknownKind."""
    known = kinds()
    try:
        return known[name]
    except KeyError:
        close = difflib.get_close_matches(str(name), known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise UnknownKind(f"there is no job kind {name!r}; there are {', '.join(known)}.{hint}") from None


def kinds() -> dict[str, Kind]:
    """Every kind by its name, ours first. Raises ImproperlyConfigured for a mistake in the setting."""
    from django.conf import settings

    configured: dict[str, Any] = settings.TAILRACE
    return _loaded(tuple(configured.get("KINDS", ())))


@functools.cache
def _loaded(added: tuple[str, ...]) -> dict[str, Kind]:
    from django.core.exceptions import ImproperlyConfigured

    found: dict[str, Kind] = {}
    for path in (*_OURS, *added):
        made = _made(path)
        if made.name in found:
            raise ImproperlyConfigured(
                f'TAILRACE["KINDS"]: {path} is called {made.name!r}, as is {type(found[made.name]).__name__}. '
                "Give it a name of its own."
            )
        found[made.name] = made
    return found


def _made(path: str) -> Kind:
    from django.core.exceptions import ImproperlyConfigured
    from django.utils.module_loading import import_string

    try:
        found = import_string(path)
    except ImportError as error:
        raise ImproperlyConfigured(
            f'TAILRACE["KINDS"] names {path!r}, which does not import: {error}'
        ) from error
    if not (isinstance(found, type) and issubclass(found, Kind)):
        raise ImproperlyConfigured(
            f'TAILRACE["KINDS"] names {path!r}, which is no subclass of scheduling.kinds.Kind.'
        )
    if not _NAME.fullmatch(getattr(found, "name", "")) or not isinstance(getattr(found, "fields", None), dict):
        raise ImproperlyConfigured(
            f'TAILRACE["KINDS"]: {path} needs a `name` (lower-case letters, digits, underscores; at most 40) '
            "and `fields` (a dict of field name to whether it is required)."
        )
    return found()
