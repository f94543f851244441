"""The drawings that pages include: flows and timelines."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import html5lib
import pytest
from django.template.loader import render_to_string
from django.utils import timezone

from workflows.drawing import Arrow, Box, Flow, Folds, cut, draw, text_width
from workflows.timeline import Run, timeline

NASTY = """<script>"&'</script>"""
SVG = "{http://www.w3.org/2000/svg}"


def parsed(markup: str) -> Any:
    """`markup` as a browser reads it; fails for what is not valid HTML, and for what the CSP forbids."""
    assert not re.search(r"\s(style|on\w+)=|<style|<script", markup)
    parser = html5lib.HTMLParser(strict=True)
    tree = parser.parse(f"<!doctype html><title>x</title>{markup}")
    ids = [element.get("id") for element in tree.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    return tree


def flow(**folds: Any) -> Flow:
    boxes = [
        Box(
            "extract",
            NASTY,
            "success",
            "Success",
            "16 shards · 14 s",
            href="/x?a=1&b=2",
            panel="/panel/extract",
        ),
        Box("delays", "delays", "failed", "Failed", NASTY, href="/d", selected=True),
        Box("alarm", "alarm", "success", "Success", carried=True),
        Box("publish", "publish", "waiting", "Waiting"),
    ]
    arrows = [
        Arrow("extract", "delays", "live"),
        Arrow("delays", "alarm", label=NASTY),
        Arrow("delays", "publish", "untaken"),
    ]
    return draw(boxes, arrows, target="#panel", folds=Folds(**folds))


def wide(failed: int = 2, **folds: Any) -> Flow:
    loads = [
        Box(
            f"l{n:02}",
            f"load_{n:02}",
            "failed" if n < failed else "success",
            "Failed" if n < failed else "Success",
        )
        for n in range(40)
    ]
    ends = [Box("begin", "begin", "success", "Success"), Box("end", "end", "waiting", "Waiting")]
    arrows = [Arrow("begin", box.key, "live" if box.key == "l05" else "plain") for box in loads]
    return draw([*ends, *loads], [*arrows, *(Arrow(box.key, "end") for box in loads)], folds=Folds(**folds))


def test_a_flow_is_valid_and_everything_written_in_it_is_escaped() -> None:
    page = parsed(render_to_string("workflows/flow.html", {"flow": flow()}))
    nodes = {node.get("id"): node for node in page.iter(f"{SVG}a")}
    assert list(nodes) == ["node-extract", "node-delays", "node-alarm", "node-publish"]
    assert nodes["node-extract"].get("href") == "/x?a=1&b=2"
    assert nodes["node-extract"].find(f"{SVG}title").text.startswith(NASTY)
    assert nodes["node-delays"].get("aria-current") == "true"
    assert nodes["node-delays"].get("aria-label") == f"delays: Failed · {NASTY}"
    assert nodes["node-alarm"].get("tabindex") == "0"
    assert [label.text for label in page.iter(f"{SVG}text") if label.get("class") == "label"] == [NASTY]


def test_a_state_is_said_by_glyph_and_word_and_colour() -> None:
    page = parsed(render_to_string("workflows/flow.html", {"flow": flow()}))
    node = next(each for each in page.iter(f"{SVG}a") if each.get("id") == "node-publish")
    assert node.get("data-state") == "waiting"
    assert node.find(f"{SVG}use").get("href").endswith("icons.svg#waiting")
    assert [text.text for text in node.iter(f"{SVG}text")] == ["publish", "Waiting"]


def test_a_flow_is_summed_up_in_words() -> None:
    assert flow().summary == "Flow of 4 nodes and 3 dependencies: 1 failed, 1 waiting, 2 success"


def test_an_empty_flow_says_so() -> None:
    assert "nothing in this flow" in render_to_string("workflows/flow.html", {"flow": draw([], [])})


def test_single_nodes_and_arrows_take_the_place_of_those_on_the_page() -> None:
    whole = flow()
    part = render_to_string("workflows/flow.html#changes", {"flow": whole.only(["publish"])})
    page = parsed(part)
    swapped = [each.get("id") for each in page.iter() if each.get("hx-swap-oob")]
    assert swapped == ["arrow-delays-publish", "node-publish"]
    full = parsed(render_to_string("workflows/flow.html", {"flow": whole}))
    assert set(swapped) <= {each.get("id") for each in full.iter()}


def test_a_flow_keeps_its_shape_while_states_change() -> None:
    boxes = [Box("a", "a", "waiting", "Waiting"), Box("b", "b", "waiting", "Waiting")]
    begun = [Box("a", "a", "running", "Running", "since an hour, and much longer than ever"), boxes[1]]
    arrows = [Arrow("a", "b")]
    assert draw(boxes, arrows).shape == draw(begun, arrows).shape
    assert draw(boxes, arrows).shape != draw(boxes, []).shape


def test_a_group_says_how_many_it_stands_for_and_leads_to_each() -> None:
    drawn = wide(open_href=lambda key: f"?open={key}", whole_href="?whole=1")
    group = next(each for each in drawn.boxes if each.shares)
    assert (group.title, group.sub, drawn.folded) == ("38 × load_…", "Success", 38)
    assert group.box.href == "?open=l02"
    assert "load_02\nload_03" in group.tip
    assert {each.title for each in drawn.boxes} == {"begin", "end", "load_00", "load_01", "38 × load_…"}
    assert [each.arrow.state for each in drawn.arrows if each.arrow.target == group.box.key] == ["live"]
    page = render_to_string("workflows/flow.html", {"flow": drawn})
    assert 'href="?whole=1"' in page
    parsed(page)


def test_an_opened_flow_leads_back_to_the_folded_one() -> None:
    opened = wide(opened=["l05"], fold_href="/f", whole_href="?whole=1")
    assert (len(opened.boxes), opened.folded, opened.fold_href, opened.unfold_href) == (42, 0, "/f", "")
    assert len(wide(whole=True).boxes) == 42


def test_a_group_of_several_states_is_shown_as_the_one_to_look_at_first() -> None:
    boxes = [
        Box(f"n{n:03}", f"n{n}", "failed" if n % 2 else "success", "Failed" if n % 2 else "Success")
        for n in range(30)
    ]
    arrows = [Arrow(f"n{n:03}", f"n{n + 1:03}") for n in range(29)]
    drawn = draw(boxes, arrows, folds=Folds(limit=3))
    assert len(drawn.boxes) == 3
    assert {each.box.state for each in drawn.boxes} == {"failed"}
    assert all({share.state for share in each.shares} == {"failed", "success"} for each in drawn.boxes)


def test_long_names_are_cut_in_their_middle_and_are_whole_in_the_tip() -> None:
    name = "load_weather_of_every_station_in_new_york_0123"
    drawn = draw([Box("a", name, "success", "Success")], []).boxes[0]
    assert drawn.title.startswith("load_weather")
    assert drawn.title.endswith("0123")
    assert "…" in drawn.title
    assert drawn.tip.startswith(name)
    assert text_width(cut("气象数据每小时汇总报告", 80, 13), 13) <= 80


@pytest.mark.parametrize("runs", [0, 3])
def test_a_timeline_is_a_table_and_everything_written_in_it_is_escaped(runs: int) -> None:
    now = datetime(2026, 11, 21, 12, tzinfo=UTC)
    ago = [now - timedelta(seconds=seconds) for seconds in (90, 60, 30)]
    rows = [
        Run("a", NASTY, "success", "Success", *ago, href="/a?x=1&y=2"),
        Run("b", "b", "running", "Running", ago[2], ago[2], sub="2 of 3", after=("a",)),
        Run("c", "c", "waiting", "Waiting", None),
    ][:runs]
    drawn = timeline(rows, now=now, zone=timezone.get_current_timezone())
    page = parsed(render_to_string("workflows/timeline.html", {"timeline": drawn}))
    heads = [head for head in page.iter("{http://www.w3.org/1999/xhtml}th") if head.get("scope") == "row"]
    said = ["".join(head.itertext()).strip() for head in heads]
    assert (
        said
        == [f"{NASTY}, Success, on the critical path", "b, Running, on the critical path2 of 3", "c, Waiting"][
            :runs
        ]
    )
