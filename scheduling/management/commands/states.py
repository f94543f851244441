"""`manage.py states`: the diagrams and tables of docs/states.md, from the tables of states themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.management.base import BaseCommand
from django.utils import translation

from scheduling.states import Machine


class Command(BaseCommand):
    help = "Print docs/states.md: every state machine as a diagram and a table (`make docs` writes the file)."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(document(), ending="")


def document() -> str:
    """The whole of docs/states.md."""
    with translation.override("en"):
        parts = [line for machine in Machine.all for line in _machine(machine)]
    head = (
        "# States",
        "",
        "Written by `make docs` from the tables in each app's `states.py`; the same tables are checked by the",
        "code and by the database. Only the moves below exist, whoever asks for them.",
    )
    return "\n".join((*head, *parts)) + "\n"


def _machine(machine: Machine) -> Iterator[str]:
    yield from ("", f"## {machine.name}", "", "```mermaid", "stateDiagram-v2")
    yield f"    [*] --> {machine.initial}"
    yield from (f"    {old} --> {new}" for old, new in machine.moves)
    yield from (f"    {state} --> [*]" for state in machine.states.values if state in machine.final)
    yield from ("```", "", "| from | to | when |", "| --- | --- | --- |")
    yield f"| – | {_cell(machine, machine.initial)} | it is made |"
    for (old, new), when in machine.moves.items():
        yield f"| {_cell(machine, old)} | {_cell(machine, new)} | {when} |"
    finals = [_cell(machine, state) for state in machine.states.values if state in machine.final]
    yield from ("", f"Final: {', '.join(finals)}.")


def _cell(machine: Machine, state: str) -> str:
    return f"{machine.states(state).label} (`{state}`)"
