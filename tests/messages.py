"""The catalogue of translations: what code and templates say, and whether all of it is translated.

`python -m tests.messages` (as `make messages`) writes config/locale/*/LC_MESSAGES/django.po anew: every text
that is there, sorted, with the translations it had, an empty one for what is new, and nothing for what is
gone; and beside it django.mo, which Django reads. It needs no GNU gettext, so any checkout can do it, and the
catalogue is the same from every machine. tests/web/test_languages.py holds the two files to the code.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import polib
from django.utils.translation.template import templatize

ROOT = Path(__file__).resolve().parent.parent
CATALOGUES = sorted((ROOT / "config" / "locale").glob("*/LC_MESSAGES/django.po"))
PLACES = ("config", "scheduling", "workflows", "reruns", "templates")

# The arguments of each function that are texts: of a context, in the singular, in the plural.
_FUNCTIONS: dict[str, tuple[int | None, int, int | None]] = {
    **dict.fromkeys(("_", "gettext", "gettext_lazy", "gettext_noop"), (None, 0, None)),
    **dict.fromkeys(("ngettext", "ngettext_lazy"), (None, 0, 1)),
    **dict.fromkeys(("pgettext", "pgettext_lazy"), (0, 1, None)),
    **dict.fromkeys(("npgettext", "npgettext_lazy"), (0, 1, 2)),
}
_STRING = r"u?'(?:\\.|[^'\\])*'|u?\"(?:\\.|[^\"\\])*\""
_CALL = re.compile(rf"\b(_|n?p?gettext)\(\s*((?:{_STRING})(?:\s*,\s*(?:{_STRING}))*)")
_PLACEHOLDER = re.compile(r"%\(\w+\)[-#0 +]*[\d.]*[a-z]|%[-#0 +]*[\d.]*[a-z]")


class Message(NamedTuple):
    """One text to translate; `plural` and `context` are None where there is none."""

    text: str
    plural: str | None = None
    context: str | None = None


def messages() -> set[Message]:
    """Every text that code and templates give to gettext."""
    found: set[Message] = set()
    for place in PLACES:
        for path in sorted((ROOT / place).rglob("*")):
            if path.suffix == ".py":
                found.update(_of_python(path))
            elif path.suffix == ".html":
                found.update(_of_template(path))
    return found


def _of_python(path: Path) -> Iterator[Message]:
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        if name not in _FUNCTIONS:
            continue
        texts = [each.value if isinstance(each, ast.Constant) else None for each in node.args]
        if any(isinstance(each, ast.JoinedStr) for each in node.args):
            raise ValueError(f"{path}:{node.lineno}: an f-string cannot be translated; use %(name)s")
        yield from _message(name, texts)


def _of_template(path: Path) -> Iterator[Message]:
    for name, arguments in _CALL.findall(templatize(path.read_text(), str(path))):
        yield from _message(name, list(ast.literal_eval(f"({arguments},)")))


def _message(function: str, texts: list[str | None]) -> Iterator[Message]:
    context, text, plural = (None if at is None else texts[at] for at in _FUNCTIONS[function])
    if isinstance(text, str):
        yield Message(text, plural, context)


# --- the catalogue ---------------------------------------------------------------------------------


def renewed(catalogue: polib.POFile, found: set[Message]) -> polib.POFile:
    """`catalogue` with exactly the texts that were `found`, and the translations that it has for them."""
    made = polib.POFile(wrapwidth=110)
    made.header, made.metadata = catalogue.header, catalogue.metadata
    known = {(entry.msgid, entry.msgctxt): entry for entry in catalogue if not entry.obsolete}
    forms = int(re.search(r"nplurals=(\d+)", catalogue.metadata["Plural-Forms"])[1])  # type: ignore[index]
    plural_of: dict[tuple[str, str | None], str | None] = {}
    for message in found:
        key = (message.text, message.context)
        plural_of[key] = plural_of.get(key) or message.plural
    for (text, context), plural in sorted(plural_of.items(), key=lambda item: (item[0][0], item[0][1] or "")):
        before = known.get((text, context))
        entry = polib.POEntry(msgid=text, msgctxt=context)
        both = text + (plural or "")
        if "%%" in both or _placeholders(both):
            entry.flags.append("python-format")
        if plural is None:
            entry.msgstr = before.msgstr if before is not None and not before.msgid_plural else ""
        else:
            kept = before.msgstr_plural if before is not None else {}
            entry.msgid_plural = plural
            entry.msgstr_plural = {form: kept.get(form, "") for form in range(forms)}
        if before is not None:
            entry.tcomment = before.tcomment
        made.append(entry)
    return made


def untranslated(catalogue: polib.POFile) -> Iterator[str]:
    """Every entry that has no translation, or one whose placeholders are others than its text's."""
    for entry in catalogue:
        translations = [entry.msgstr] if not entry.msgid_plural else list(entry.msgstr_plural.values())
        wanted = _placeholders(entry.msgid_plural or entry.msgid)
        if entry.fuzzy or not all(translations):
            yield f"not translated: {entry.msgid!r}"
        elif any(_differs(wanted, entry, each) for each in translations):
            yield f"other placeholders than the text's: {entry.msgid!r} as {translations!r}"


def _differs(wanted: set[str], entry: polib.POEntry, translation: str) -> bool:
    if "python-format" not in entry.flags:
        return False
    return _placeholders(translation) != wanted


def _placeholders(text: str) -> set[str]:
    return set(_PLACEHOLDER.findall(text.replace("%%", "")))


def main() -> int:
    found, left = messages(), 0
    for path in CATALOGUES:
        catalogue = renewed(polib.pofile(str(path)), found)
        catalogue.save(str(path))
        path.with_suffix(".mo").write_bytes(catalogue.to_binary())
        missing = list(untranslated(catalogue))
        left += len(missing)
        print(f"{path.relative_to(ROOT)}: {len(catalogue)} texts, {len(missing)} to translate")
        print("".join(f"  {each}\n" for each in missing), end="")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
