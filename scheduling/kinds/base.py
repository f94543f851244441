"""What a job kind is: it checks a spec when a task is saved, and runs it when an instance is executed.

To add one, write a class like this, and name its dotted path in `TAILRACE["KINDS"]`
(environment: TAILRACE_KINDS). Nothing else in Tailrace knows the kinds one by one.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from django.utils.translation import gettext as _

from scheduling import reasons
from scheduling.jobs import JobContext, JobFailed
from scheduling.reasons import said

RESULT_BYTES = 64 * 1024
"""The most that a job's result may take as JSON."""

MASK = "***"
"""How a secret is shown, in logs too."""

SECRET_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class SpecErrors(ValueError):
    """What is wrong with a spec: `errors` maps each field to its message; "" is the spec as a whole."""

    def __init__(self, errors: dict[str, str]) -> None:
        super().__init__(
            "; ".join(f"{field}: {message}" if field else message for field, message in errors.items())
        )
        self.errors = errors


class Kind:
    """One kind of job. Instances are shared by threads and keep no state of a run.

    `name` is what a task says in `kind`. `fields` are the names a spec may hold: True for the required ones.
    `uses_connection`: a job may use Django's connection of its worker, so that stays open while the job runs.
    """

    name: ClassVar[str]
    fields: ClassVar[Mapping[str, bool]]
    uses_connection: ClassVar[bool] = True

    def clean(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """The spec as it is stored: checked, and with one way to write each thing.

        Raises SpecErrors with every mistake at once. `clean(clean(spec)) == clean(spec)`.
        """
        raise NotImplementedError

    def run(self, spec: Mapping[str, Any], context: JobContext) -> Any:
        """Run the cleaned `spec`, in the main thread of a worker; return a JSON-able result or None.

        Raises JobFailed when the job did not succeed, and JobStopped soon after `context.stop` was set.
        django-q2's TimeoutException (a SystemExit) may arise at any point. In all three cases
        everything that the job started must have ended before the exception leaves.
        """
        raise NotImplementedError

    def rendered(
        self, spec: Mapping[str, Any], parameters: Mapping[str, Any], builtins: Mapping[str, Any]
    ) -> str:
        """The command, script or request of a run as text, every secret as `***`; "" when it says no more than
        the spec.

        `parameters` are expanded. It has no secrets and no connection: pages call it in the web process. Raises
        ValueError or JobFailed when the run could not be filled in either.
        """
        return ""


class SpecReader:
    """Takes the fields of a spec one by one and collects what is wrong with them."""

    def __init__(self, kind: Kind, spec: object) -> None:
        if not isinstance(spec, Mapping):
            raise SpecErrors({"": _("A job is a map of fields, and this is not one.")})
        self.errors: dict[str, str] = {}
        self._spec = spec
        for field in spec:
            if field not in kind.fields:
                self.errors[str(field)] = _unknown(str(field), kind)
        for field, required in kind.fields.items():
            if required and field not in spec:
                self.errors[field] = _("This field is required.")

    def take(self, field: str, *types: type, article: str) -> Any:
        """The value of `field` if it is one of `types`, else None; `article` says in words what it must be."""
        value = self._spec.get(field)
        if field not in self._spec or field in self.errors:
            return None
        # bool is an int in Python, and never meant as one here.
        if isinstance(value, types) and (bool in types or not isinstance(value, bool)):
            if isinstance(value, str) and "\0" in value:
                self.errors[field] = _("It holds a NUL character.")
                return None
            return value
        self.errors[field] = _("It must be %(article)s.") % {"article": article}
        return None

    def text(self, field: str) -> str | None:
        """A text that is not blank."""
        value = self.take(field, str, article=_("a text"))
        if value is not None and not value.strip():
            self.errors[field] = _("It is empty.")
            return None
        return str(value) if value is not None else None

    def texts(self, field: str) -> dict[str, str] | None:
        """A map of texts; numbers in it become texts."""
        value = self.take(field, Mapping, article=_("a map of names to texts"))
        if value is None:
            return None
        for name, inner in value.items():
            plain = isinstance(inner, str | int | float) and not isinstance(inner, bool)
            if not isinstance(name, str) or not plain or "\0" in f"{name}{inner}":
                self.errors[field] = _("The value of %(name)s must be a text.") % {"name": name}
                return None
        return {name: str(inner) for name, inner in value.items()}

    def flag(self, field: str) -> bool | None:
        """True or false."""
        value = self.take(field, bool, article=_("true or false"))
        return bool(value) if value is not None else None

    def finish(self, **values: Any) -> dict[str, Any]:
        """The values that were given, or SpecErrors when something was wrong."""
        if self.errors:
            raise SpecErrors(self.errors)
        return {field: value for field, value in values.items() if value is not None}


def _unknown(field: str, kind: Kind) -> str:
    close = difflib.get_close_matches(field, kind.fields, n=1)
    if close:
        return _("A %(kind)s job has no such field. Did you mean “%(close)s”?") % {
            "kind": kind.name,
            "close": close[0],
        }
    return _("A %(kind)s job has no such field; it has %(fields)s.") % {
        "kind": kind.name,
        "fields": ", ".join(kind.fields),
    }


def checked_result(result: Any) -> Any:
    """`result` if PostgreSQL can keep it as JSON of at most RESULT_BYTES; raises JobFailed otherwise."""
    if result is None:
        return None
    try:
        text = json.dumps(result, ensure_ascii=False, allow_nan=False)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise JobFailed(said(reasons.RESULT_NOT_JSON, error=error)) from error
    if size > RESULT_BYTES:
        raise JobFailed(said(reasons.RESULT_TOO_LONG, size=f"{size:,}", most=f"{RESULT_BYTES:,}"))
    if "\\u0000" in text:
        raise JobFailed(said(reasons.RESULT_WITH_NUL))
    # As it will be read back: tuples are lists and keys are texts.
    return json.loads(text)


def secret(name: str, context: JobContext) -> str:
    """The secret `name` of this installation, which the log shows as *** from now on.

    It is the environment variable TAILRACE_SECRET_<NAME> of the node. Raises JobFailed when it is not set.
    """
    variable = f"TAILRACE_SECRET_{name.upper()}"
    value = os.environ.get(variable)
    if value is None:
        raise JobFailed(said(reasons.SECRET_MISSING, name=repr(name), variable=variable))
    context.log.redact(value)
    return value
