"""The sentences of ours that are kept with records, and how a page says them in its reader's language.

Who acts and who reads may speak different languages, and the engine speaks none. So a reason is stored in
English, as `said` makes it, where SQL and logs can read it; `in_words` knows a stored sentence again by its
template and says it in the language of the reader. Whatever is not a sentence of ours (a job's own error,
what a person typed) stays as it is.

A parameter's name tells its shape (`_SHAPES`). Shapes and templates together make every sentence readable in
one way only, which tests/unit/test_reasons.py holds for the whole registry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from django.utils.translation import get_language, gettext, gettext_noop

from scheduling.states import BatchState, InstanceState, NodeState, Outcome

# --- the registry ----------------------------------------------------------------------------------

STOPPED = gettext_noop("Stopped by %(who)s")
STOPPED_WHY = gettext_noop("Stopped by %(who)s: %(why)s")
REPLACED = gettext_noop("replaced by batch %(batch)s")
JUDGED_ANEW = gettext_noop("Judged anew by %(who)s, needing %(ratio)s %%")
JUDGED_ANEW_WHY = gettext_noop("Judged anew by %(who)s, needing %(ratio)s %%: %(why)s")
MARKED = gettext_noop("Marked as %(state)s by %(who)s: %(why)s")
NO_NODE_ONLINE = gettext_noop("No node of the deployment group is online")
NODE_IS = gettext_noop("Node %(node)s is %(state)s")

NODE_LOST = gettext_noop("Node lost: %(why)s")
NODE_SILENT = gettext_noop("no heartbeat for %(seconds)s s")
NODE_STOPPED = gettext_noop("%(node)s was stopped")
NODE_OFFLINE = gettext_noop("%(node)s is offline")
NODE_STOPPING = gettext_noop("stopping; running jobs may finish")
NODE_HEARD_AGAIN = gettext_noop("heard again")
NODE_GIVEN_UP = gettext_noop("%(node)s was given up by %(who)s")
NODE_GIVEN_UP_WHY = gettext_noop("%(node)s was given up by %(who)s: %(why)s")
GIVEN_UP = gettext_noop("given up by %(who)s, as nothing is heard of node %(node)s")
GIVEN_UP_WHY = gettext_noop("given up by %(who)s, as nothing is heard of node %(node)s: %(why)s")
START_REFUSED = gettext_noop("The database refused the start: %(error)s")
WORKER_DIED = gettext_noop("Worker lost: the worker process on %(node)s died")
WORKERS_DIED = gettext_noop("Worker lost: the workers of %(node)s died")
NODE_STARTED_ANEW = gettext_noop("Worker lost: node %(node)s was restarted")

REPORT_REFUSED = gettext_noop(
    "Node %(node)s reported %(state)s too late: the execution had already ended without it"
)

STOPPED_ON_REQUEST = gettext_noop("stopped on request")
TIMED_OUT = gettext_noop("ended after its time-out of %(seconds)s s")
TIMED_OUT_LATE = gettext_noop("went on after its time-out of %(seconds)s s")
TIMED_OUT_DEAF = gettext_noop("ended after its time-out, which the job did not obey")
RESULT_REFUSED = gettext_noop("the result cannot be stored: %(error)s")

UNSCHEDULED = gettext_noop("Its schedule cannot be reckoned: %(error)s. Save the task with a correct one.")
NO_CONTENT = gettext_noop("the task has no content")
SKIPPED_FOR = gettext_noop("Batch %(batch)s of the task is unfinished, and its overlap policy is to skip.")
SKIPPED = gettext_noop("An earlier batch of the task is unfinished, and its overlap policy is to skip.")
MISSED_WHILE_OFF = gettext_noop("The task was disabled when it was due.")
MISFIRED = gettext_noop("No scheduler fired it within %(seconds)s s of its due time.")
NOT_MADE = gettext_noop("Its batch could not be made: %(error)s")

EXIT_CODE = gettext_noop("exit code %(code)s")
EXIT_CODE_KILLED = gettext_noop("exit code %(code)s (often SIGKILL: out of memory?)")
EXIT_CODE_SIGNAL = gettext_noop("exit code %(code)s (often %(signal)s)")
KILLED_BY = gettext_noop("killed by %(signal)s")
KEEPER_DIED = gettext_noop(
    "the process that watched over the job was %(why)s; everything that the job had started was ended"
)
NO_DIRECTORY = gettext_noop("cannot run in the directory %(directory)s: %(error)s")
COMMAND_TOO_LONG = gettext_noop(
    "the command and its environment are too long for a process; pass large values in a file"
)
NO_PROCESS = gettext_noop("cannot start a process: %(error)s")
NO_COMMAND = gettext_noop("cannot start the command: %(error)s")
NUL_IN_PARAMETER = gettext_noop("the parameter %(name)s holds a NUL character, which no process can be given")
SECRET_MISSING = gettext_noop(
    "the secret %(name)s is not set on this node: start it with %(variable)s in its environment"
)

RESULT_NOT_JSON = gettext_noop("the job's result is not JSON: %(error)s")
RESULT_TOO_LONG = gettext_noop("the job's result is %(size)s bytes as JSON, and at most %(most)s are kept")
RESULT_WITH_NUL = gettext_noop(
    "the job's result is not JSON that PostgreSQL keeps: a text in it holds a NUL character"
)
JOB_UNKNOWN = gettext_noop("no job is registered as %(call)s on this node; is its code older than the task?")
JOB_UNKNOWN_ISOLATED = gettext_noop("no job is registered as %(call)s in a process of its own")
JOB_EXITED = gettext_noop("the job called sys.exit(%(argument)s)")
JOB_WITHOUT_RESULT = gettext_noop("the job's process ended without a result: %(why)s")
JOB_TERMINATED = gettext_noop("the job's process was ended by SIGTERM")

REQUEST_IMPOSSIBLE = gettext_noop("the request cannot be made: %(error)s")
NO_ANSWER = gettext_noop("no answer from %(host)s: %(error)s")
WRONG_STATUS = gettext_noop("the answer was status %(status)s, and %(expected)s was expected")

NO_CONNECTION = gettext_noop(
    "There is no connection “%(name)s” here; there are: %(known)s. Set %(variable)s to its URL."
)
NO_CONNECTIONS = gettext_noop(
    "There is no connection “%(name)s” here, nor any other. Set %(variable)s to its URL."
)
CONNECTION_NOT_URL = gettext_noop("%(variable)s is not a URL like postgresql://user:password@host:5432/name.")
CONNECTION_SILENT = gettext_noop("the connection %(name)s does not answer: %(error)s")
NOT_COMMITTED = gettext_noop("the transaction was not committed: the server answered %(answer)s")
COPY_REFUSED = gettext_noop(
    "COPY from STDIN or to STDOUT has no place in an sql job; use a python or a shell job"
)
STRINGS_NOT_STANDARD = gettext_noop(
    "line %(line)s: a plain quote holds a backslash, and standard_conforming_strings is off here;"
    " write it as E'…', or set standard_conforming_strings on"
)
NO_SUCH_PARAMETER = gettext_noop("line %(line)s: there is no parameter %(name)s; there are %(known)s")

NO_CHANNEL = gettext_noop(
    "There is no channel “%(name)s” here; there are: %(known)s. Set %(variable)s to its address."
)
NO_CHANNELS = gettext_noop(
    "There is no channel “%(name)s” here, nor any other. Set %(variable)s to its address."
)
CHANNEL_NOT_ADDRESS = gettext_noop(
    "%(variable)s is not an address that Apprise knows, like mailto://user:password@host or json://host/path."
)
CHANNEL_REFUSED = gettext_noop("The channel did not take it: %(error)s")
CHANNEL_HANGS = gettext_noop("The channel has not answered within %(seconds)s s.")
CHANNEL_SILENT = gettext_noop("The channel did not take it, and did not say why.")


def templates_in(namespace: Mapping[str, Any]) -> list[str]:
    """The templates among a module's globals: texts whose names are in capitals."""
    return [value for name, value in namespace.items() if name.isupper() and isinstance(value, str)]


REGISTRY = templates_in(globals())


def register(namespace: Mapping[str, Any]) -> None:
    """Let the templates of another app's module be known again on pages; called once, when the app is ready."""
    REGISTRY.extend(template for template in templates_in(namespace) if template not in REGISTRY)
    _patterns.cache_clear()


# --- to be stored ----------------------------------------------------------------------------------


def said(template: str, /, **parameters: object) -> str:
    """The English text of a template of the registry, which is what is stored.

    A state is given as what it is: said(NODE_IS, node="etl-1", state=NodeState.OFFLINE).
    """
    return template % {name: _plain(name, value) for name, value in parameters.items()}


def said_with(template: str, template_why: str, why: str, /, **parameters: object) -> str:
    """`template_why` with the reason that a person gave, or `template` when they gave none."""
    return said(template_why, why=why, **parameters) if why else said(template, **parameters)


def _plain(name: str, value: object) -> str:
    return str(value).replace("_", " ") if name == "state" else str(value)


# --- to be read ------------------------------------------------------------------------------------

_STATES: dict[str, Any] = {
    member.value.replace("_", " "): member
    for states in (BatchState, InstanceState, NodeState, Outcome)
    for member in states
}
_ACTORS = {"schedule": gettext_noop("the schedule"), "engine": gettext_noop("the engine")}

_NUMBER = r"-?[\d.,]+(?:e[+-]?\d+)?"
_SHAPES = {
    "state": "|".join(sorted(_STATES, key=len, reverse=True)),
    # What a reason follows: a name ends where ": " begins.
    "who": r"(?:(?!: ).)*",
    "node": r"[-\w]+",
    "nodes": r"[-\w]+(?:, [-\w]+)*",
    "signal": r"SIG\w+",
    "variable": r"TAILRACE_[<>\w]+",
    "directory": r"'.*?'|\".*?\"",
    "host": r"\S*?",
    **dict.fromkeys(("batch", "code", "line", "most", "ratio", "seconds", "size", "status"), _NUMBER),
}
_ANYTHING = r".*"
_PLACEHOLDER = re.compile(r"%\((\w+)\)s|%%")


class Recognised(NamedTuple):
    """The template that a text was made from, and its parameters as they stand in the text."""

    template: str
    parameters: Mapping[str, str]


def recognise(text: str) -> Recognised | None:
    """What `said` made `text` from; None for a text that is not ours."""
    for template, beginning, pattern in _patterns():
        if text.startswith(beginning) and (match := pattern.fullmatch(text)):
            return Recognised(template, match.groupdict())
    return None


def in_words(text: str) -> str:
    """A stored text in the active language, if it is ours; any other as it is."""
    if not text or (get_language() or "en").startswith("en"):
        return text
    found = recognise(text)
    if found is None:
        return text
    return gettext(found.template) % {name: _in_words(name, value) for name, value in found.parameters.items()}


def actor_in_words(name: str) -> str:
    """Who acted: parts of the engine in the active language, people as they are called."""
    return gettext(_ACTORS[name]) if name in _ACTORS else name


def state_in_words(word: str) -> str:
    """A state's word in English, as `said` writes it, in the active language and in a sentence's middle."""
    return str(_STATES[word].label).lower()


def _in_words(name: str, value: str) -> str:
    match name:
        case "state":
            return state_in_words(value)
        case "who":
            return actor_in_words(value)
        case "why" | "error":
            return in_words(value)
        case _:
            return value


@cache
def _patterns() -> tuple[tuple[str, str, re.Pattern[str]], ...]:
    """Every template with the literal text that it begins with and its pattern, the longest text first."""
    made = [(template, _PLACEHOLDER.split(template)[0], _pattern(template)) for template in REGISTRY]
    return tuple(sorted(made, key=lambda one: -len(_PLACEHOLDER.sub("", one[0]))))


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile("".join(_pieces(template)), re.DOTALL)


def _pieces(template: str) -> Iterator[str]:
    end = 0
    for found in _PLACEHOLDER.finditer(template):
        yield re.escape(template[end : found.start()])
        name = found[1]
        yield f"(?P<{name}>{_SHAPES.get(name, _ANYTHING)})" if name else "%"
        end = found.end()
    yield re.escape(template[end:])
