"""Reading YAML: lines, one meaning only, and nothing that blows up."""

from __future__ import annotations

import textwrap
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduling.definitions import reading, writing
from scheduling.definitions.reading import Document, Mistake, dotted, read


def one(text: str) -> Document:
    documents, mistakes = read("a.yaml", text.encode())
    assert mistakes == []
    [document] = documents
    return document


def mistakes_in(text: str | bytes) -> list[str]:
    _documents, mistakes = read("a.yaml", text.encode() if isinstance(text, str) else text)
    return [str(mistake) for mistake in mistakes]


def test_every_path_knows_its_line() -> None:
    document = one(
        "team: a\ntasks:\n  - name: x\n    trigger:\n      cron: '* * * * *'\n  - {name: y,\n     kind: z}\n"
    )
    assert document.line(("tasks", 0, "trigger", "cron")) == 5
    assert document.line(("tasks", 1)) == 6
    assert document.line(("tasks", 1, "kind")) == 7
    assert document.line(("tasks", 0, "trigger", "absent")) == 4
    assert document.line(("absent",)) == 1


def test_a_path_is_written_as_people_write_it() -> None:
    assert dotted(("tasks", 2, "trigger", "cron")) == "tasks[2].trigger.cron"
    assert str(Mistake("a.yaml", 12, "tasks[2]", "No.")) == "a.yaml:12: tasks[2]: No."
    assert str(Mistake("a.yaml", 0, "", "No.")) == "a.yaml: No."


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        *[(word, word) for word in ("NO", "yes", "on", "10:30", "2013-01-01", "007", "0x1f", "1_000", "=")],
        *[("true", True), ("False", False), ("~", None), ("", None), ("-5", -5), ("0", 0)],
        *[("1.5", 1.5), ("1e3", 1000.0), ("-.5", -0.5), ("'5'", "5"), ('"true"', "true")],
    ],
)
def test_a_scalar_means_one_thing(written: str, meant: object) -> None:
    data = one(f"a: {written}").data
    assert data == {"a": meant}
    assert type(data["a"]) is type(meant)


def test_a_key_that_stands_twice_is_refused_with_both_lines() -> None:
    assert mistakes_in("a: 1\nb: 2\na: 3\n") == ["a.yaml:3: a: The key stands twice; it is on line 1 already."]


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system ['true']", "!!set {a}", "!x y", "!!binary aGk="]
)
def test_a_tag_that_makes_objects_is_refused(tag: str) -> None:
    [said] = mistakes_in(f"a: {tag}")
    assert said.startswith("a.yaml:1: a: The tag")


def test_aliases_and_merges_are_read() -> None:
    document = one("base: &b {x: 1, y: 2}\nall:\n  - *b\n  - {<<: *b, y: 3}\n")
    assert document.data["all"] == [{"x": 1, "y": 2}, {"x": 1, "y": 3}]


def test_a_small_file_cannot_become_an_endless_one() -> None:
    laughs = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    for name, previous in zip("bcdefghij", "abcdefghi", strict=True):
        laughs += f"{name}: &{name} [{', '.join([f'*{previous}'] * 10)}]\n"
    began = time.process_time()
    [said] = mistakes_in(laughs)
    assert "aliases expand to more than 100,000 values" in said
    assert time.process_time() - began < 0.2


def test_a_long_file_is_no_expanded_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_VALUES", 1000)
    assert len(one(f"a: [{'x,' * (reading.MOST_VALUES + 1)}]\n").data["a"]) > reading.MOST_VALUES


def test_merges_cannot_multiply_either() -> None:
    laughs = "a: &a {k0: x, k1: x, k2: x, k3: x, k4: x, k5: x, k6: x, k7: x, k8: x, k9: x}\n"
    for name, previous in zip("bcdefghij", "abcdefghi", strict=True):
        laughs += f"{name}: &{name} {{<<: [{', '.join([f'*{previous}'] * 10)}]}}\n"
    [said] = mistakes_in(laughs)
    assert "expand" in said


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {<<: *a}", "a: " + "[" * 100_000, "- " * 5000 + "x"])
def test_what_is_nested_without_end_is_refused(text: str) -> None:
    [said] = mistakes_in(text)
    assert "nested more than" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1\nb: 2\n", "a.yaml:2: This is not YAML"),
        ("a:\n\t- b\n", "indented with spaces, not tabs"),
        (b"a: 1\nb: \xff\n", "a.yaml:2: The file is not UTF-8"),
        ("a: 1\nb: \x07\n", "a.yaml:2: The control character U+0007"),
        ("a: *b\n", "a.yaml:1: This is not YAML: found undefined alias"),
        ("? [a]\n: b\n", "a.yaml:1: A key must be a name"),
        ("true: b\n", "a.yaml:1: A key must be a name"),
        ("a: !!int x\n", "a.yaml:1: a: This is no int"),
        ("a: " + "9" * 5000, "a.yaml:1: a: This is no int"),
        ("a: {<<: 5}\n", "<< merges maps"),
    ],
)
def test_what_is_not_plain_yaml_is_refused_with_its_line(text: str | bytes, said: str) -> None:
    [found] = mistakes_in(text)
    assert said in found


def test_documents_are_read_one_by_one_and_empty_ones_left_out() -> None:
    documents, mistakes = read("a.yaml", b"\xef\xbb\xbfa: 1\n---\n---\nb: 2\n")
    assert [document.data for document in documents] == [{"a": 1}, {"b": 2}]
    assert mistakes == []
    assert documents[1].line(("b",)) == 4


@pytest.mark.parametrize(
    "text", ["1e3", "-.5", ".5", "1.5e3", "yes", "NO", "2013-01-01", "10:30", "007", "=", "<<", "", "~"]
)
def test_a_text_that_looks_like_something_else_is_written_in_quotes(text: str) -> None:
    written = writing.dump({"a": text})
    assert one(written).data == {"a": text}
    assert "'" in written


@pytest.mark.parametrize("text", ["SELECT 1;\n\n\tSELECT 2  \n", "a\nb", "a\nb\n\n", "a\n  b\n \nc\n"])
def test_a_text_of_several_lines_is_written_as_it_is(text: str) -> None:
    written = writing.dump({"sql": text})
    assert one(written).data == {"sql": text}
    assert written.startswith("sql: |")
    assert "\\" not in written


texts = st.text(
    st.sampled_from("ab 0:#-'\"\\\n\t|>&*!%@`{}[],?=~.eé\x85\u2028\ufeff\x1b\x7f\r🚀")
    | st.characters(codec="utf-8", exclude_characters="\0"),
    max_size=12,
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.long
@settings(max_examples=400, deadline=None)
@given(plain)
def test_whatever_is_written_is_read_as_the_same(value: object) -> None:
    written = "x:\n" + textwrap.indent(writing.dump([value]), "  ", writing.not_empty)
    again = one(written).data["x"][0]
    assert again == value
    assert repr(again) == repr(value), "also of the same types"
