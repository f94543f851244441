import re
from typing import Any

import pytest
from django.test import Client
from django.utils import translation

from scheduling import services
from scheduling.reasons import REPLACED, in_words, said
from tests import factories as make
from tests.web.conftest import Desk
from tests.web.pages import actions_of, element, live_address, marks, shown, state_of, text_of


def test_it_shows_the_facts_and_every_instance(desk: Desk, operator: Client) -> None:
    batch = make.end_batch(make.batch(desk.task, parameters={"carrier": "<AA>"}))
    page = operator.get(f"/batches/{batch.pk}/")
    assert state_of(page, f"batch-{batch.pk}") == "success"
    instances = list(batch.instances.order_by("number"))
    assert marks(page, "instance") == [instance.pk for instance in instances]
    row = element(page, f"instance-{instances[1].pk}")
    assert "<code>UA</code>" in row
    assert "node-a" in row
    assert "&lt;AA&gt;" in text_of(page)


def test_it_leads_to_what_it_is_a_rerun_of_and_to_its_reruns(desk: Desk, operator: Client) -> None:
    batch = make.end_batch(make.batch(desk.task))
    again = services.rerun(batch, by=operator.user)
    assert f'href="/batches/{batch.pk}/"' in element(operator.get(f"/batches/{again.pk}/"), f"batch-{again.pk}")
    assert f'href="/batches/{again.pk}/"' in text_of(operator.get(f"/batches/{batch.pk}/"))


def test_buttons_follow_the_state_of_the_batch_and_of_each_instance(desk: Desk, operator: Client) -> None:
    batch = make.batch(desk.task)
    first, second, third = batch.instances.select_related("group", "node")
    make.start(first)
    make.end(first)
    make.start(second)
    page = operator.get(f"/batches/{batch.pk}/")
    assert actions_of(page, f"batch-{batch.pk}") == ["stop"]
    assert [actions_of(page, f"instance-{each.pk}") for each in (first, second, third)] == [
        ["rerun"],
        ["stop"],
        ["stop"],
    ]


def test_a_viewer_sees_it_without_buttons(desk: Desk, viewer: Client) -> None:
    batch = make.batch(desk.task)
    assert "data-action" not in text_of(viewer.get(f"/batches/{batch.pk}/"))


@pytest.mark.parametrize(
    "address",
    [
        f"/batches/{{}}/{part}"
        for part in ("", "changes/", "stop/", "rerun/", "instances/stop/", "instances/rerun/")
    ],
)
def test_another_teams_batch_is_not_found_as_if_it_were_not_there(
    desk: Desk, outsider: Client, address: str
) -> None:
    batch = make.batch(desk.task)
    there, not_there = outsider.get(address.format(batch.pk)), outsider.get(address.format(10**12))
    assert (there.status_code, not_there.status_code) == (404, 404)
    assert text_of(there).replace("csrf", "") != ""
    assert "extract" not in text_of(there)


def test_many_instances_come_in_pages_by_number(desk: Desk, operator: Client) -> None:
    wide = make.task(group=desk.group, shards=[str(number) for number in range(230)])
    batch = make.batch(wide)
    numbers = dict(batch.instances.values_list("pk", "number"))
    page = operator.get(f"/batches/{batch.pk}/")
    assert [numbers[pk] for pk in marks(page, "instance")] == list(range(100))
    assert 'href="?from=100#instances-card"' in text_of(page)
    last = operator.get(f"/batches/{batch.pk}/?from=200")
    assert [numbers[pk] for pk in marks(last, "instance")] == list(range(200, 230))
    assert 'href="?from=100#instances-card"' in text_of(last)
    assert "?from=300" not in text_of(last)


@pytest.mark.parametrize("shards", [2, 90])
def test_it_takes_the_same_number_of_queries_however_many_instances_it_has(
    desk: Desk, operator: Client, django_assert_num_queries, shards: int
) -> None:
    batch = make.batch(make.task(group=desk.group, shards=["x"] * shards))
    make.start_batch(batch)
    # Session, user, the batch, what executes, the user's roles, why it waits; the group's nodes, the
    # instances; the chain of reruns; the ends of the instances' ids and the journal.
    with django_assert_num_queries(13):
        operator.get(f"/batches/{batch.pk}/")


def test_only_changed_rows_come_back_and_the_head_with_them(desk: Desk, operator: Client) -> None:
    batch = make.batch(desk.task)
    page = operator.get(f"/batches/{batch.pk}/")
    assert operator.get(live_address(page), headers=shown(page)).status_code == 204
    first = batch.instances.select_related("group", "node").first()
    make.start(first)
    answer = operator.get(live_address(page), headers=shown(page))
    assert marks(answer, "instance") == [first.pk]
    assert state_of(answer, f"batch-{batch.pk}") == "running"


def test_it_stops_asking_when_all_has_ended(desk: Desk, operator: Client) -> None:
    batch = make.batch(desk.task)
    page = operator.get(f"/batches/{batch.pk}/")
    make.end_batch(batch)
    answer = operator.get(live_address(page), headers=shown(page))
    assert answer.status_code == 286
    assert len(marks(answer, "instance")) == 3
    assert "every 2s" not in text_of(answer)


# --- the instances that are asked for --------------------------------------------------------------


@pytest.fixture
def mixed(desk: Desk) -> Any:
    """Of three the first failed on node-a and was rerun, the second runs on node-b, the third waits."""
    other = make.node("node-b", group=desk.group)
    batch = make.batch(desk.task)
    first, second, _third = batch.instances.select_related("group", "node").order_by("number")
    make.start(first, on=desk.node)
    make.end(first, "failed", error="exit code 3", may_retry=False)
    services.rerun_instance(first, by="night")
    make.start(first, on=desk.node)
    make.end(first, "failed", error="exit code 3", may_retry=False)
    make.start(second, on=other)
    return batch


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("", [0, 1, 2]),
        ("state=failed", [0]),
        ("state=failed&state=waiting", [0, 2]),
        ("node=node-a&node=node-b", [0, 1]),
        ("cause=rerun", [0]),
        ("shard=1-2", [1, 2]),
        ("shard=0, 2", [0, 2]),
        ("shard=1&state=waiting", []),
    ],
)
def test_a_filter_shows_what_matches(mixed: Any, operator: Client, query: str, numbers: list[int]) -> None:
    found = dict(mixed.instances.values_list("pk", "number"))
    page = operator.get(f"/batches/{mixed.pk}/?{query}")
    assert [found[pk] for pk in marks(page, "instance")] == numbers
    assert operator.get(live_address(page), headers=shown(page)).status_code == 204


def test_an_instance_is_found_by_its_id_and_by_that_of_an_execution(mixed: Any, operator: Client) -> None:
    first, _, third = mixed.instances.order_by("number")
    execution = first.executions.latest("pk")
    page = operator.get(f"/batches/{mixed.pk}/?instance={execution.pk},{third.pk}")
    assert set(marks(page, "instance")) >= {first.pk, third.pk}


@pytest.mark.parametrize(
    "query", ["state=asleep", "node=node-z", "cause=whim", "shard=x", "shard=3-", "instance=abc"]
)
def test_an_invalid_filter_is_refused_and_shows_nothing(mixed: Any, operator: Client, query: str) -> None:
    page = operator.get(f"/batches/{mixed.pk}/?{query}")
    assert page.status_code == 422
    assert marks(page, "instance") == []


def test_instances_are_grouped_by_node(mixed: Any, operator: Client) -> None:
    page = text_of(operator.get(f"/batches/{mixed.pk}/?by=node"))
    groups = [page.index(f'scope="rowgroup">{name}<') for name in ("node-a", "node-b", "No node yet")]
    assert groups == sorted(groups)


# --- why, and what happened ------------------------------------------------------------------------


def test_it_says_why_it_is_held_and_by_which_batch(desk: Desk, operator: Client) -> None:
    task = make.task(group=desk.group, overlap="queue")
    ahead, held = make.batch(task), make.batch(task)
    head = element(operator.get(f"/batches/{held.pk}/"), f"batch-{held.pk}")
    assert f"Held: batch {ahead.pk} of the same task is unfinished (overlap policy queue)." in head
    assert f'<a href="/batches/{ahead.pk}/">' in head


def test_it_says_why_it_waits(desk: Desk, operator: Client) -> None:
    batch = make.batch(desk.task)

    def said() -> str:
        return element(operator.get(f"/batches/{batch.pk}/"), f"batch-{batch.pk}")

    assert "free slots are there" in said()
    make.start_batch(make.batch(make.task(group=desk.group, shards=["x", "y"])))
    assert "Waits for a free slot: 2 of 2 slots of the group etl are taken." in said()
    type(desk.node).objects.update(state="offline")
    assert "No node of the group etl is online." in said()


def test_it_says_why_it_failed_and_who_has_not_confirmed_a_stop(desk: Desk, operator: Client) -> None:
    batch = make.batch(desk.task)
    first, second, _ = make.start_batch(batch)
    make.end(first, "failed", may_retry=False)
    services.stop(batch, by=operator.user, reason="wrong file")
    head = element(operator.get(f"/batches/{batch.pk}/"), f"batch-{batch.pk}")
    assert f"Stopped by {operator.user}: wrong file" in head
    assert "2 instances were told to end, and their nodes have not confirmed that yet: node-a." in head
    make.end(second, "success")
    make.end(make.Instance.objects.get(batch=batch, number=2), "terminated")
    head = element(operator.get(f"/batches/{batch.pk}/"), f"batch-{batch.pk}")
    assert "1 of 3 instances succeeded, which is 33 %; 100 % are needed." in head
    assert f'href="/batches/{batch.pk}/?state=failed&amp;state=terminated"' in head


def test_the_reruns_are_a_chain_with_who_and_why(desk: Desk, operator: Client) -> None:
    source = make.end_batch(make.batch(desk.task))
    again = make.end_batch(services.rerun(source, by=operator.user, reason="the feed was corrected"))
    once_more = services.rerun(again, by="night", reason="disk full")
    for batch in (source, again, once_more):
        chain = element(operator.get(f"/batches/{batch.pk}/"), "reruns")
        assert chain.index("the feed was corrected") < chain.index(f"rerun of {again.pk} by night")
        assert chain.count('aria-current="true"') == 1


def test_a_reason_of_our_own_in_the_chain_is_said_in_the_readers_language(desk: Desk, operator: Client) -> None:
    batch = make.end_batch(make.batch(desk.task), "failed")
    services.rerun(batch, by="night", reason=said(REPLACED, batch=7))
    operator.cookies["django_language"] = "zh-hans"
    with translation.override("zh-hans"):
        in_chinese = in_words(said(REPLACED, batch=7))
    chain = element(operator.get(f"/batches/{batch.pk}/"), "reruns")
    assert in_chinese in chain
    assert said(REPLACED, batch=7) not in chain


def test_the_content_is_shown_as_it_ran_and_what_was_changed_since(desk: Desk, operator: Client) -> None:
    batch = make.end_batch(make.batch(desk.task))
    content = element(operator.get(f"/batches/{batch.pk}/"), "content")
    assert "command: &#x27;true&#x27;" in content
    assert "it is today's" in content
    spec = {"kind": "shell", "spec": {"command": "false"}, "mode": "sharded", "shards": ["AA", "UA", "DL"]}
    services.save_task(team=desk.team, group=desk.group, name="extract", content=spec)
    content = element(operator.get(f"/batches/{batch.pk}/"), "content")
    assert '<span data-sign="-">- command: &#x27;true&#x27;' in content
    assert '<span data-sign="+">+ command: &#x27;false&#x27;' in content


@pytest.mark.long
def test_of_many_shards_the_content_shows_the_first_and_a_comparison_those_that_differ(
    desk: Desk, operator: Client
) -> None:
    shards = [f"part {number}" for number in range(500)]
    batch = make.batch(make.task("wide", group=desk.group, shards=shards))
    services.stop(batch, by="ann")
    content = element(operator.get(f"/batches/{batch.pk}/"), "content")
    assert "  19: part 19\n  # and 480 more shards, to 499: part 499\n" in content
    assert "  20: part 20" not in content
    changed = [*shards[:250], "another", *shards[251:]]
    spec = {"kind": "shell", "spec": {"command": "true"}, "mode": "sharded", "shards": changed}
    services.save_task(team=desk.team, group=desk.group, name="wide", content=spec)
    comparison = re.findall(
        r'<span data-sign="(.)">(?:\1 |)(.*)', element(operator.get(f"/batches/{batch.pk}/"), "content")
    )
    assert comparison == [
        ("@", "⋯"),
        (" ", "  247: part 247"),
        (" ", "  248: part 248"),
        (" ", "  249: part 249"),
        ("-", "  250: part 250"),
        ("+", "  250: another"),
        (" ", "  251: part 251"),
        (" ", "  252: part 252"),
        (" ", "  253: part 253"),
    ]


def test_the_journal_tells_of_the_batch_and_of_its_instances(desk: Desk, operator: Client) -> None:
    other = make.batch(desk.task)
    services.stop_instance(other.instances.first(), by="somebody else")
    batch = make.batch(desk.task)
    services.stop_instance(batch.instances.first(), by=operator.user, reason="wrong shard")
    journal = element(operator.get(f"/batches/{batch.pk}/"), "journal")
    assert journal.index("wrong shard") < journal.index("Batch begun")
    assert "somebody else" not in journal


def test_a_batch_without_instances_names_its_own_cause(desk: Desk, operator: Client) -> None:
    passed_over = make.passed_over_batch(desk.task)
    page = text_of(operator.get(f"/batches/{passed_over.pk}/"))
    assert "its workflow did not take this branch" in page
    assert "Bring one online" not in page
    empty = make.batch(make.task(group=make.group("dark", team=desk.team), mode="broadcast"))
    assert "Bring one online, then rerun the batch." in text_of(operator.get(f"/batches/{empty.pk}/"))
