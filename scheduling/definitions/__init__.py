"""Definitions as YAML files: read and check them, show what would change, apply, export.

Teams, groups and tasks are of this app; what apps above define are sections that they register.

definitions = read_files(["flights.yaml"])   # InvalidDefinitions: every mistake with file and line
shown = plan(definitions)                    # what would change
apply(definitions, shown)                    # exactly that, or nothing
print(export())                              # what apply accepts, and would change nothing
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from scheduling.definitions.checking import Definitions, InvalidDefinitions, TaskDefinition, as_written, check
from scheduling.definitions.planning import Change, DefinitionsMoved, Plan, Step, apply, plan, task_step
from scheduling.definitions.reading import Document, Mistake, read
from scheduling.definitions.writing import dump, export, shards_form, task_form, written

__all__ = [
    "Change",
    "Definitions",
    "DefinitionsMoved",
    "InvalidDefinitions",
    "Mistake",
    "Plan",
    "Step",
    "TaskDefinition",
    "apply",
    "as_written",
    "dump",
    "export",
    "plan",
    "read",
    "read_files",
    "shards_form",
    "task_form",
    "task_step",
    "written",
]


def read_files(names: Iterable[str]) -> Definitions:
    """What the files define (`-` is the standard input); raises InvalidDefinitions with every mistake."""
    documents: list[Document] = []
    mistakes: list[Mistake] = []
    for name in dict.fromkeys(names):
        try:
            raw = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        except OSError as error:
            mistakes.append(Mistake(name, 0, "", f"The file cannot be read: {error.strerror or error}."))
            continue
        found, wrong = read("<stdin>" if name == "-" else name, raw)
        if not found and not wrong:
            wrong = [Mistake(name, 0, "", "The file defines nothing.")]
        documents += found
        mistakes += wrong
    return check(documents, mistakes)
