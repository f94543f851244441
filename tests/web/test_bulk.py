"""Stop and rerun of many batches, as asked from the execution records and as done in the shell."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import pytest
from django.db import DatabaseError
from django.test import Client

from scheduling import services
from scheduling.errors import TooMany
from scheduling.models import Batch, JournalEntry, Node, Task
from tests import factories as make
from tests.web.conftest import Desk
from tests.web.pages import HTMX, text_of


def ended(task: Task, outcome: str = "failed", count: int = 1) -> list[Batch]:
    return [make.end_batch(make.batch(task), outcome) for _ in range(count)]


def asked(client: Client, verb: str, *batches: Batch) -> Any:
    """The confirm step for ticked batches."""
    ticks = "&".join(f"batch={batch.pk}" for batch in batches)
    return client.get(f"/batches/{verb}/?query=tab%3Dbasic&{ticks}", headers=HTMX)


def asked_all(client: Client, verb: str, query: str = "tab=basic") -> Any:
    """The confirm step for everything that a filter matches."""
    return client.get(f"/batches/{verb}/?all=1&query={quote(query)}", headers=HTMX)


def answered(client: Client, verb: str, question: Any, reason: str = "the feed was corrected") -> Any:
    """What follows when the confirm step `question` is answered."""
    fields = r'<input type="hidden" name="(bound|others|query|all)" value="([^"]*)"'
    hidden = dict(re.findall(fields, text_of(question)))
    hidden = {name: value.replace("&amp;", "&") for name, value in hidden.items()}
    return client.post(f"/batches/{verb}/", {**hidden, "reason": reason}, headers=HTMX)


# --- the question ----------------------------------------------------------------------------------


def test_the_question_says_how_many_will_be_hit_and_why_others_will_not(desk: Desk, operator: Client) -> None:
    first, second = ended(desk.task, count=2)
    waiting = make.batch(desk.task)
    said = text_of(asked(operator, "rerun", first, second, waiting))
    assert "Rerun 2 of 3 batches" in said
    assert "2 new batches begin with 6 instances" in said
    assert "extract × 2" in said
    assert "The state is: waiting." in said


def test_the_question_of_a_stop_counts_instances(desk: Desk, operator: Client) -> None:
    running, waiting = make.batch(desk.task), make.batch(desk.task)
    make.start_batch(running)
    [finished] = ended(desk.task)
    said = text_of(asked(operator, "stop", running, waiting, finished))
    assert "Stop 2 of 3 batches" in said
    assert "3 running instances are told to end" in said
    assert "3 waiting instances will never start" in said
    assert "The state is: failed." in said


def test_the_question_tells_of_batches_that_were_rerun_before(desk: Desk, operator: Client) -> None:
    [batch] = ended(desk.task)
    services.rerun(batch, by="tests")
    assert "1 of them has been rerun before" in text_of(asked(operator, "rerun", batch))


def test_all_that_match_are_those_of_the_lists_filter(desk: Desk, operator: Client) -> None:
    ended(desk.task, "failed", 2)
    ended(desk.task, "success", 3)
    assert "Rerun 2 of 2 batches" in text_of(asked_all(operator, "rerun", "tab=basic&state=failed"))


@pytest.mark.parametrize("verb", ["stop", "rerun"])
def test_an_invalid_filter_is_refused_and_never_means_everything(
    desk: Desk, operator: Client, verb: str
) -> None:
    make.batch(desk.task)
    page = asked_all(operator, verb, "tab=basic&state=asleep")
    assert page.status_code == 422
    assert "The filter is not valid" in text_of(page)
    assert 'name="bound" value=""' in text_of(page)


def test_nothing_ticked_is_refused(desk: Desk, operator: Client) -> None:
    page = operator.get("/batches/stop/?query=tab%3Dbasic", headers=HTMX)
    assert (page.status_code, "Nothing is ticked" in text_of(page)) == (422, True)


def test_too_many_are_refused_with_the_count_and_what_to_do(
    desk: Desk, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduling.views.many.MOST_AT_ONCE", 2)
    for _ in range(3):
        make.batch(desk.task)
    page = asked_all(operator, "stop")
    assert page.status_code == 422
    assert "3 batches match, and one action takes at most 2" in text_of(page)
    assert "Narrow the filter" in text_of(page)


def test_when_none_can_be_hit_there_is_nothing_to_confirm(desk: Desk, operator: Client) -> None:
    page = asked(operator, "stop", *ended(desk.task))
    assert page.status_code == 409
    assert "None of them can be stopped" in text_of(page)
    assert 'name="reason"' not in text_of(page)


def test_the_question_takes_the_same_number_of_queries_however_many_are_meant(
    desk: Desk, operator: Client, django_assert_max_num_queries: Any
) -> None:
    batches = ended(desk.task, count=12)
    with django_assert_max_num_queries(8):
        asked(operator, "rerun", *batches)


# --- the deed --------------------------------------------------------------------------------------


def test_many_are_rerun_and_each_stands_in_the_journal(desk: Desk, operator: Client) -> None:
    sources = ended(desk.task, count=3)
    answer = answered(operator, "rerun", asked(operator, "rerun", *sources))
    assert "3 new batches have begun" in text_of(answer)
    assert answer.headers["HX-Trigger-After-Settle"] == '{"acted": {}}'
    again = Batch.objects.filter(rerun_of__in=sources)
    assert sorted(batch.rerun_of_id for batch in again) == sorted(batch.pk for batch in sources)
    entries = JournalEntry.objects.filter(action="rerun", actor=operator.user.username, via="web")
    assert {entry.reason for entry in entries} == {"the feed was corrected"}
    assert entries.count() == 3


def test_the_new_batches_can_be_looked_at_by_the_link_of_the_answer(desk: Desk, operator: Client) -> None:
    sources = ended(desk.task, count=2)
    answer = text_of(answered(operator, "rerun", asked(operator, "rerun", *sources)))
    [address] = re.findall(r'href="(/batches/\?trigger=manual[^"]*)"', answer)
    page = operator.get(address.replace("&amp;", "&"))
    shown = {row.batch.rerun_of_id for row in page.context["rows"]}
    assert shown == {batch.pk for batch in sources}


def test_many_are_stopped(desk: Desk, operator: Client) -> None:
    running, waiting = make.batch(desk.task), make.batch(desk.task)
    make.start_batch(running)
    answer = answered(operator, "stop", asked(operator, "stop", running, waiting), "wrong input")
    assert "2 batches are stopped" in text_of(answer)
    running.refresh_from_db()
    waiting.refresh_from_db()
    assert (running.state, waiting.state) == ("terminating", "failed")
    assert "wrong input" in running.reason


def test_what_changed_since_the_question_is_refused_by_name_and_the_rest_is_done(
    desk: Desk, operator: Client
) -> None:
    first, second = make.batch(desk.task), make.batch(desk.task)
    question = asked(operator, "stop", first, second)
    make.end_batch(first)
    answer = text_of(answered(operator, "stop", question))
    assert "1 batch is stopped" in answer
    assert "1 was refused" in answer
    assert f"Batch {first.pk} has state Success" in answer


def test_what_came_to_match_since_the_question_is_left_alone_and_said(desk: Desk, operator: Client) -> None:
    make.batch(desk.task)
    question = asked_all(operator, "stop", "tab=basic&state=waiting")
    late = make.batch(desk.task)
    answer = text_of(answered(operator, "stop", question))
    assert "1 batch is stopped" in answer
    assert "1 more batch matches the filter by now; it was left alone" in answer
    late.refresh_from_db()
    assert late.state == "waiting"


def test_what_the_question_left_alone_is_no_news_in_the_answer(desk: Desk, operator: Client) -> None:
    make.batch(desk.task)
    ended(desk.task)
    question = asked_all(operator, "stop")
    assert "by now" not in text_of(answered(operator, "stop", question))


def test_a_reason_is_asked_for(desk: Desk, operator: Client) -> None:
    batches = ended(desk.task, count=2)
    answer = answered(operator, "rerun", asked(operator, "rerun", *batches), reason=" ")
    assert answer.status_code == 422
    assert "Say why; it is kept in the journal" in text_of(answer)
    assert not Batch.objects.filter(rerun_of__isnull=False).exists()
    assert "2 new batches have begun" in text_of(answered(operator, "rerun", answer))


def test_without_javascript_question_and_answer_are_pages(desk: Desk, operator: Client) -> None:
    [batch] = ended(desk.task)
    question = operator.get(f"/batches/rerun/?query=tab%3Dbasic&batch={batch.pk}")
    assert "<html" in text_of(question)
    answer = operator.post("/batches/rerun/", {"bound": str(batch.pk), "reason": "again"})
    # The page with the answer is another, so that loading it again begins nothing again.
    assert answer.status_code == 302
    for _ in range(2):
        told = text_of(operator.get(answer["Location"]))
        assert "<html" in told
        assert "1 new batch has begun" in told
        assert "Show the new batches" in told
    assert Batch.objects.filter(rerun_of=batch).count() == 1


def test_what_became_of_a_deed_is_told_to_who_did_it_alone(desk: Desk, operator: Client) -> None:
    waiting, foreign = make.batch(desk.task), make.batch()
    bound = f"{waiting.pk} {foreign.pk}"
    told = operator.post("/batches/stop/", {"bound": bound, "reason": "wrong file"}, follow=True)
    assert "1 batch is stopped" in text_of(told)
    assert "It is not there any more, or not yours to see." in text_of(told)
    assert operator.get("/batches/rerun/?told")["Location"] == "/batches/"
    assert desk.sign_in().get("/batches/stop/?told")["Location"] == "/batches/"


def test_more_than_one_action_takes_are_refused_also_when_they_are_named(desk: Desk, operator: Client) -> None:
    batch = make.batch(desk.task)
    bound = " ".join(str(batch.pk + number) for number in range(501))
    answer = operator.post("/batches/stop/", {"bound": bound, "reason": "x"}, headers=HTMX)
    assert (answer.status_code, "at most 500" in text_of(answer)) == (409, True)
    batch.refresh_from_db()
    assert batch.state == "waiting"


# --- who -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["stop", "rerun"])
def test_a_viewer_is_refused_and_told_the_permission(desk: Desk, viewer: Client, verb: str) -> None:
    batches = [make.batch(desk.task), *ended(desk.task)]
    bound = " ".join(str(batch.pk) for batch in batches)
    for page in (
        asked(viewer, verb, *batches),
        viewer.post(f"/batches/{verb}/", {"bound": bound, "reason": "x"}, headers=HTMX),
        # Also when nothing is named, or no reason given.
        asked(viewer, verb),
        viewer.post(f"/batches/{verb}/", {"bound": bound}, headers=HTMX),
        viewer.post(f"/batches/{verb}/", {"reason": "x"}),
    ):
        assert page.status_code == 403
        words = {"stop": "Stop runs (scheduling.stop_task)", "rerun": "Rerun (scheduling.rerun_task)"}[verb]
        assert f"You need the permission {words} here." in text_of(page)


def test_batches_of_another_team_are_neither_hit_nor_told_of(desk: Desk, operator: Client) -> None:
    foreign = make.batch()
    own = make.batch(desk.task)
    assert "Stop 1 of 1 batch" in text_of(asked(operator, "stop", own, foreign))
    answer = operator.post("/batches/stop/", {"bound": f"{own.pk} {foreign.pk}", "reason": "x"}, headers=HTMX)
    assert "It is not there any more, or not yours to see" in text_of(answer)
    foreign.refresh_from_db()
    assert foreign.state == "waiting"


def test_where_one_may_not_act_is_left_alone_with_the_permission_named(desk: Desk) -> None:
    elsewhere = make.team()
    client = desk.sign_in("operator")
    elsewhere.memberships.create(user=client.user, role="viewer")
    seen = make.batch(make.task(group=make.group(team=elsewhere)))
    said = text_of(asked(client, "stop", make.batch(desk.task), seen))
    assert "Stop 1 of 2 batches" in said
    assert "You need the permission Stop runs (scheduling.stop_task)" in said


# --- in the shell ----------------------------------------------------------------------------------


def test_failures_between_two_times_are_rerun_in_one_call(desk: Desk) -> None:
    before, first, second, after = ended(desk.task, count=4)
    ended(desk.task, "success")
    found = Batch.objects.failed_between(first.ended_at, after.ended_at)
    assert list(found) == [first, second]
    result = services.rerun_all(found, reason="the feed was corrected")
    assert [batch.rerun_of_id for batch in result.done] == [first.pk, second.pk]
    assert repr(result) == "2 done, 0 refused"
    assert before.pk not in {batch.rerun_of_id for batch in result.done}


def test_one_that_is_refused_drops_no_other(desk: Desk) -> None:
    gone, failed, waiting = make.batch(desk.task), *ended(desk.task), make.batch(desk.task)
    Batch.objects.filter(pk=gone.pk).delete()
    result = services.rerun_all([gone, failed, waiting], by="mei")
    assert [batch.rerun_of_id for batch in result.done] == [failed.pk]
    assert {each.pk: each.why for each in result.refused} == {
        gone.pk: "It is not there any more.",
        waiting.pk: f"Batch {waiting.pk} has state Waiting; only a finished batch can be rerun.",
    }


def test_more_than_the_limit_are_refused_as_a_whole_unless_it_is_lifted(desk: Desk) -> None:
    batches = ended(desk.task, count=3)
    with pytest.raises(TooMany, match="at most 2 batches"):
        services.rerun_all(Batch.objects.all(), limit=2)
    with pytest.raises(TooMany):
        services.stop_all(batches, limit=2)
    assert Batch.objects.count() == 3
    assert len(services.rerun_all(Batch.objects.all(), limit=None).done) == 3


def test_an_overlap_policy_holds_for_each_rerun_of_many(desk: Desk) -> None:
    skips = make.task(group=desk.group, overlap="skip")
    queues = make.task(group=desk.group, overlap="queue")
    batches = [*ended(skips, count=2), *ended(queues, count=2)]
    result = services.rerun_all(batches, by="mei")
    assert [batch.rerun_of_id for batch in result.done] == [batches[0].pk, batches[2].pk, batches[3].pk]
    assert [batch.held for batch in result.done] == [False, False, True]
    assert [each.pk for each in result.refused] == [batches[1].pk]
    assert "skips a run while" in result.refused[0].why


def test_a_rerun_of_many_broadcasts_gives_up_nodes_that_are_away(desk: Desk) -> None:
    other = make.node("node-b", group=desk.group)
    both = make.end_batch(make.batch(make.task(group=desk.group, mode="broadcast")))
    Node.objects.filter(pk=desk.node.pk).update(state="offline")
    only = make.end_batch(make.batch(make.task(group=desk.group, mode="broadcast")))
    Node.objects.filter(pk=desk.node.pk).update(state="online")
    Node.objects.filter(pk=other.pk).update(state="offline")
    result = services.rerun_all([both, only], by="mei")
    assert [each.pk for each in result.refused] == [only.pk]
    assert "none of them is online: node-b" in result.refused[0].why
    [again] = result.done
    states = dict(again.instances.values_list("node__name", "state"))
    assert states == {"node-a": "waiting", "node-b": "terminated"}


def test_when_they_cannot_be_made_together_each_is_made_alone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = ended(desk.task, count=3)
    made = services.create_batches

    def fails(requests: Any) -> Any:
        if len(requests) > 1 or requests[0].rerun_of == batches[1]:
            raise DatabaseError("deadlock detected")
        return made(requests)

    monkeypatch.setattr("scheduling.services.bulk.create_batches", fails)
    monkeypatch.setattr("scheduling.services.operations.create_batches", fails)
    result = services.rerun_all(batches, by="mei")
    assert [batch.rerun_of_id for batch in result.done] == [batches[0].pk, batches[2].pk]
    assert [each.pk for each in result.refused] == [batches[1].pk]
    assert "The database did not take it" in result.refused[0].why


def test_held_batches_are_stopped_before_what_holds_them(desk: Desk) -> None:
    task = make.task(group=desk.group, overlap="queue")
    first, held = make.batch(task), make.batch(task)
    result = services.stop_all([first, held], by="mei")
    assert [batch.pk for batch in result.done] == [held.pk, first.pk]
    assert not JournalEntry.objects.filter(object_type="batch", action="released", object_id=held.pk).exists()


def test_reruns_of_many_take_no_statement_for_each(desk: Desk, django_assert_max_num_queries: Any) -> None:
    batches = ended(desk.task, count=12)
    with django_assert_max_num_queries(14):
        services.rerun_all(batches, by="mei")
