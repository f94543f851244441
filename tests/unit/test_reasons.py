"""What is stored in English is said in the reader's language, and only what is ours."""

from __future__ import annotations

import re

import pytest
from django.utils import translation
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduling import reasons
from scheduling.reasons import REGISTRY, in_words, recognise, said
from scheduling.states import BatchState, InstanceState, NodeState, Outcome

PLACEHOLDER = re.compile(r"%\((\w+)\)s")
STATES = [*BatchState, *InstanceState, *NodeState, *Outcome]

NASTY = [
    "",
    " ",
    "wrong file",
    "Stopped by eve: because",
    "exit code 3",
    "%(who)s 100 % %s %%",
    "two\nlines\r\n",
    "a: b: c",
    ".* (?P<x>) \\d [",
    "文件不对：重跑",
    "🚧 “quoted” 'it''s'",
    "x" * 5000,
]
OF_SHAPE = {
    "who": st.sampled_from(["ann", "os:root", "张三", "o'neil", "a b", "x:", "%s", "engine", "schedule", ""]),
    "node": st.sampled_from(["etl-1", "node_lost", "is", "Node"]),
    "nodes": st.sampled_from(["a", "a, b-2", "清洗, load_1, is"]),
    "signal": st.sampled_from(["SIGKILL", "SIGRTMIN"]),
    "variable": st.sampled_from(["TAILRACE_SQL_<NAME>", "TAILRACE_SECRET_X"]),
    "directory": st.sampled_from(["/a: b", "it's", "both ' and \""]).map(repr),
    "host": st.sampled_from(["example.org", "::1", "", "10.0.0.1"]),
    "state": st.sampled_from(STATES),
    **dict.fromkeys(
        ("batch", "code", "line", "most", "ratio", "seconds", "size", "status"),
        st.sampled_from(["0", "7", "-9", "4711", "1,024", "0.5", "1e+06"]),
    ),
}
ANYTHING = st.sampled_from(NASTY) | st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40)


def parameters_of(template: str) -> st.SearchStrategy[dict[str, object]]:
    names = PLACEHOLDER.findall(template)
    return st.fixed_dictionaries({name: OF_SHAPE.get(name, ANYTHING) for name in names})


@pytest.mark.parametrize("template", REGISTRY)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_stored_reason_is_known_again_whatever_its_parameters(template, data):
    parameters = data.draw(parameters_of(template))

    stored = said(template, **parameters)

    found = recognise(stored)
    assert found is not None
    assert found.template == template
    assert said(found.template, **found.parameters) == stored
    if len(set(parameters) - set(OF_SHAPE)) < 2:
        assert found.parameters == {
            name: value.replace("_", " ") if name == "state" else value for name, value in parameters.items()
        }


@pytest.mark.parametrize("text", NASTY[1:3] + NASTY[5:])
def test_what_is_not_ours_passes_unchanged(text):
    with translation.override("zh-hans"):
        assert in_words(text) == text


def test_a_template_asks_only_for_shapes_that_are_told_apart():
    for template in REGISTRY:
        assert "%" not in PLACEHOLDER.sub("", template).replace("%%", ""), f"{template}: write %(name)s"
        assert not re.search(r"\)s%\(", template), f"{template} has two parameters without text between"


@pytest.fixture
def chinese(monkeypatch):
    """The catalogue's own words are tested with the languages; these are enough to see what is looked up."""
    words = {
        reasons.STOPPED_WHY: "由 %(who)s 停止：%(why)s",
        reasons.REPLACED: "被批次 %(batch)s 替换",
        reasons.NODE_IS: "节点 %(node)s %(state)s",
        "the schedule": "调度",
    }
    monkeypatch.setattr(reasons, "gettext", lambda text: words.get(text, text))
    with translation.override("zh-hans"):
        yield


def test_a_reason_within_a_reason_is_said_too(chinese):
    stored = said(reasons.STOPPED_WHY, who="schedule", why=said(reasons.REPLACED, batch=12))

    assert stored == "Stopped by schedule: replaced by batch 12"
    assert in_words(stored) == "由 调度 停止：被批次 12 替换"


def test_a_persons_own_words_within_a_reason_stay(chinese):
    assert in_words("Stopped by ann: 100 % wrong") == "由 ann 停止：100 % wrong"


def test_a_state_within_a_reason_is_said_as_pages_say_it(chinese):
    with translation.override("zh-hans"):
        label = str(NodeState.OFFLINE.label).lower()

    assert in_words(said(reasons.NODE_IS, node="etl-1", state=NodeState.OFFLINE)) == f"节点 etl-1 {label}"
    assert said(reasons.NODE_IS, node="a", state="timed_out") == "Node a is timed out"


@pytest.mark.parametrize("template", REGISTRY)
def test_a_reason_begins_with_a_sentence_and_not_with_an_identifier(template):
    assert not re.match(r"\w+_\w+\b", template)
