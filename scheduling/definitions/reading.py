"""Reads YAML into plain data that still knows its lines, and refuses what could mean two things.

Narrower than YAML 1.1 on purpose: `NO`, `on`, `10:30` and `2013-01-01` are texts, a key stands once, tags that
make objects are refused, and aliases may not multiply a small file into a huge one. Imports no Django.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

# What aliases may add to the values that are written out.
MOST_VALUES = 100_000
DEEPEST = 60
_UNFINISHED = 0

type Path = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"
_MERGE = _TAG + "merge"
FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$|[-+]?\.(?:inf|nan)$")


@dataclass(frozen=True, order=True)
class Mistake:
    """What is wrong, and where: `flights.yaml:12: tasks[2].trigger.cron: …`. Line 0 is the file as a whole."""

    file: str
    line: int
    path: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(filter(None, [place, self.path, self.message]))


@dataclass
class Document:
    """One YAML document: its data, the line of every path in it, and scalars that are no text as written."""

    file: str
    data: Any
    lines: dict[Path, int] = field(default_factory=dict)
    written: dict[Path, str] = field(default_factory=dict)

    def line(self, path: Path) -> int:
        """The line of `path`, or of the nearest thing that holds it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def mistake(self, path: Path, message: str) -> Mistake:
        return Mistake(self.file, self.line(path), dotted(path), message)


def dotted(path: Path) -> str:
    """`("tasks", 2, "trigger", "cron")` as `tasks[2].trigger.cron`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def read(file: str, raw: bytes) -> tuple[list[Document], list[Mistake]]:
    """Every document of one file that is not empty, and every mistake that reading alone can find."""
    documents: list[Document] = []
    mistakes: list[Mistake] = []
    try:
        for root in _nodes(raw.decode("utf-8-sig")):
            walk = _Walk(file, root, mistakes)
            if walk.document.data is not None:
                documents.append(walk.document)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        mistakes.append(Mistake(file, line, "", "The file is not UTF-8; save it in that encoding."))
    except _Refused as refusal:
        mistakes.append(refusal.mistake)
    except yaml.reader.ReaderError as error:
        line = raw.decode("utf-8-sig").count("\n", 0, error.position) + 1
        code = error.character if isinstance(error.character, int) else ord(error.character)
        mistakes.append(Mistake(file, line, "", f"The control character U+{code:04X} is not allowed in YAML."))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        mistakes.append(Mistake(file, mark.line + 1 if mark else 0, "", _syntax(error)))
    return documents, mistakes


def _syntax(error: yaml.MarkedYAMLError) -> str:
    message = f"This is not YAML: {', '.join(filter(None, [error.problem, error.context]))}"
    if error.problem and "'\\t'" in error.problem:
        message += " (YAML is indented with spaces, not tabs)"
    return f"{message}."


class _Loader(yaml.SafeLoader):
    """Composes nodes; never constructs objects."""

    yaml_implicit_resolvers: dict[str, Any] = {}
    depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        self.depth += 1
        if self.depth > DEEPEST:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, f"it is nested more than {DEEPEST} deep", mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


for _name, _pattern, _first in (
    ("null", re.compile(r"(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("int", re.compile(r"[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789")),
    ("float", FLOAT, list("-+.0123456789")),
    ("merge", re.compile(r"<<$"), ["<"]),
):
    _Loader.add_implicit_resolver(_TAG + _name, _pattern, _first)


def _nodes(text: str) -> Iterator[Node]:
    loader = _Loader(text)
    try:
        while loader.check_node():
            if (node := loader.get_node()) is not None:
                yield node
    finally:
        loader.dispose()


class _Refused(Exception):
    """Reading this file any further makes no sense."""

    def __init__(self, mistake: Mistake) -> None:
        self.mistake = mistake


class _Walk:
    """Turns the nodes of one document into plain data, noting lines and mistakes on the way."""

    def __init__(self, file: str, root: Node, mistakes: list[Mistake]) -> None:
        self.document = Document(file, None, {(): _line(root)})
        self.mistakes = mistakes
        self.sizes: dict[Node, int] = {}
        self.measure(root)
        self.document.data = self.value(root, ())

    def wrong(self, node: Node, path: Path, message: str) -> Mistake:
        mistake = Mistake(self.document.file, _line(node), dotted(path), message)
        self.mistakes.append(mistake)
        return mistake

    def measure(self, node: Node) -> int:
        """How many values `node` expands to, found without expanding it; refuses what is too many.

        Each node is counted once, in the order of the file: what an alias means has been counted, or holds it.
        """
        if (known := self.sizes.get(node)) is not None:
            if known == _UNFINISHED:
                raise self.too_deep(node)
            return known
        self.sizes[node] = _UNFINISHED
        size = 1
        if isinstance(node, MappingNode):
            size += sum(self.measure(key) + self.measure(value) for key, value in node.value)
        elif isinstance(node, SequenceNode):
            size += sum(map(self.measure, node.value))
        if size - len(self.sizes) > MOST_VALUES:
            problem = f"Its aliases expand to more than {MOST_VALUES:,} values."
            raise _Refused(Mistake(self.document.file, _line(node), "", problem))
        self.sizes[node] = size
        return size

    def too_deep(self, node: Node) -> _Refused:
        problem = f"It is nested more than {DEEPEST} deep, or an alias holds itself."
        return _Refused(Mistake(self.document.file, _line(node), "", problem))

    def value(self, node: Node, path: Path) -> Any:
        if len(path) > DEEPEST:
            raise self.too_deep(node)
        if isinstance(node, MappingNode) and node.tag == _TAG + "map":
            result = {}
            for key, (key_node, value_node) in self.pairs(node, path).items():
                self.document.lines[(*path, key)] = _line(key_node)
                result[key] = self.value(value_node, (*path, key))
            return result
        if isinstance(node, SequenceNode) and node.tag == _TAG + "seq":
            items = []
            for index, item in enumerate(node.value):
                self.document.lines[(*path, index)] = _line(item)
                items.append(self.value(item, (*path, index)))
            return items
        if isinstance(node, ScalarNode):
            return self.scalar(node, path)
        self.wrong(node, path, f"The tag {node.tag} is not allowed here; write plain YAML.")
        return None

    def pairs(self, node: MappingNode, path: Path, depth: int = 0) -> dict[str | int, tuple[Node, Node]]:
        """The keys of a map with their nodes; what it merges (`<<: *defaults`) comes after its own."""
        own: dict[str | int, tuple[Node, Node]] = {}
        merged: list[dict[str | int, tuple[Node, Node]]] = []
        if len(path) + depth > DEEPEST:
            raise self.too_deep(node)
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                sources = value_node.value if isinstance(value_node, SequenceNode) else [value_node]
                for source in sources:
                    if isinstance(source, MappingNode):
                        merged.append(self.pairs(source, path, depth + 1))
                    else:
                        self.wrong(source, path, "<< merges maps, and this is none.")
                continue
            key = self.key(key_node, path)
            if key is None:
                continue
            if key in own:
                first = _line(own[key][0])
                self.wrong(key_node, (*path, key), f"The key stands twice; it is on line {first} already.")
                continue
            own[key] = (key_node, value_node)
        for source in merged:
            for key, nodes in source.items():
                own.setdefault(key, nodes)
        return own

    def key(self, node: Node, path: Path) -> str | int | None:
        if isinstance(node, ScalarNode) and node.tag == _TAG + "str":
            return str(node.value)
        if isinstance(node, ScalarNode) and node.tag == _TAG + "int" and len(node.value) < 20:
            return int(node.value)
        self.wrong(node, path, "A key must be a name; put it in quotes if it is one.")
        return None

    def scalar(self, node: ScalarNode, path: Path) -> Any:
        text = node.value
        kind = node.tag.removeprefix(_TAG)
        if kind == "str":
            return text
        self.document.written[path] = text
        try:
            match kind:
                case "null":
                    return None
                case "bool":
                    return {"true": True, "false": False}[text.lower()]
                case "int":
                    return int(text)
                case "float":
                    return float(text)
        except (ValueError, KeyError):
            self.wrong(node, path, f"This is no {kind}; write it in quotes if it is text.")
            return None
        self.wrong(node, path, f"The tag {node.tag} is not allowed here; write plain YAML.")
        return None


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1
