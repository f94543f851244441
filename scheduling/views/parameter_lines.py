"""Parameters on a form, a line each, to be changed for one run: see scheduling/parameter_lines.html."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

TEXT, JSON = "text", "json"
MOST_LINES = 200
_GONE = object()


@dataclass
class Line:
    """A parameter on the form: `own` when it is the task's, `error` what is wrong with it."""

    name: str
    value: str
    written_as: str = TEXT
    own: bool = False
    error: str = ""

    @property
    def is_long(self) -> bool:
        """Whether it needs a box of several lines."""
        return "\n" in self.value


class ParameterLines:
    """The parameters of one run, a line each: the task's own with their values, then those added."""

    def __init__(self, own: Mapping[str, Any]) -> None:
        self.own = own
        self.lines = [
            Line(name, value if isinstance(value, str) else _json(value), _written_as(value), own=True)
            for name, value in sorted(own.items())
        ]

    def read(self, data: Any) -> None:
        """Take over what the form says; lines that say nothing are left out."""
        columns = (data.getlist(each)[:MOST_LINES] for each in ("name", "value", "as"))
        by_name = {line.name: line for line in self.lines}
        for name, value, written_as in zip(*columns, strict=False):
            given = Line(name.strip(), value.replace("\r\n", "\n"), JSON if written_as == JSON else TEXT)
            known = by_name.get(given.name)
            if known is not None and known.own and not known.error:
                known.value, known.written_as = given.value, given.written_as
                # A second line of the same name is a mistake, not a change of mind.
                by_name[given.name] = Line(given.name, "", error="twice")
            elif given.name or given.value:
                self.lines.append(given)
                self._look_at(given, by_name)

    def _look_at(self, line: Line, by_name: dict[str, Line]) -> None:
        if not line.name:
            line.error = _("Give it a name, or empty its value.")
        elif line.name in by_name:
            line.error = _("This parameter is there twice; keep one of them.")
        else:
            by_name[line.name] = line

    def add(self) -> None:
        """One more line to fill in."""
        self.lines.append(Line("", ""))

    def overrides(self) -> dict[str, Any]:
        """The parameters that differ from the task's own; lines that cannot be read get their error."""
        found = {}
        for line in self.lines:
            if line.error:
                continue
            try:
                value = json.loads(line.value) if line.written_as == JSON else line.value
            except (ValueError, RecursionError) as error:
                line.error = _("This is not JSON (%s). Choose “text”, or correct it.") % error
                continue
            if self.own.get(line.name, _GONE) != value or type(self.own[line.name]) is not type(value):
                found[line.name] = value
        return found

    def refuse(self, errors: Mapping[str, str]) -> str:
        """Put each error of the validation at its line; returns those that belong to none."""
        rest = []
        for name, message in errors.items():
            top = name.removeprefix("parameters.").partition(".")[0].partition("[")[0]
            lines = [line for line in self.lines if line.name == top]
            if lines:
                lines[0].error = message
            else:
                rest.append(f"{name}: {message}")
        return " ".join(rest)

    @property
    def wrong(self) -> bool:
        """Whether some line has an error."""
        return any(line.error for line in self.lines)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _written_as(value: Any) -> str:
    return TEXT if isinstance(value, str) else JSON
