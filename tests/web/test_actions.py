import pytest
from django.test import Client

from scheduling import services
from scheduling.errors import TooMany
from scheduling.models import Batch, Instance, JournalEntry
from scheduling.states import NodeState
from tests import factories as make
from tests.web.conftest import Desk
from tests.web.pages import HTMX, actions_of, state_of, text_of

REASON = {"reason": "wrong input file"}


def test_the_confirm_step_says_what_a_stop_will_hit(desk: Desk, operator: Client) -> None:
    batch = make.batch(desk.task)
    first, second, _ = batch.instances.select_related("group", "node")
    make.start(first)
    make.end(first)
    make.start(second)
    page = text_of(operator.get(f"/batches/{batch.pk}/stop/"))
    assert "1 running instance is told to end" in page
    assert "1 waiting instance will never start." in page
    assert "1 instance has ended and stays as it is." in page
    assert '<label for="id_reason">' in page


def test_the_confirm_step_is_a_dialog_for_htmx_and_a_page_without(desk: Desk, operator: Client) -> None:
    batch = make.batch(desk.task)
    page = operator.get(f"/batches/{batch.pk}/stop/")
    dialog = operator.get(f"/batches/{batch.pk}/stop/", headers=HTMX)
    assert "<dialog" not in text_of(page)
    assert text_of(dialog).lstrip().startswith("<dialog")
    assert page["Vary"].startswith("HX-Request") or "HX-Request" in page["Vary"]
    assert Batch.objects.get(pk=batch.pk).state == "waiting"


def test_stopping_a_batch_from_the_list_gives_back_its_fresh_row(desk: Desk, operator: Client) -> None:
    batch = make.batch(desk.task)
    make.start_batch(batch)
    answer = operator.post(
        f"/batches/{batch.pk}/stop/", REASON, headers={**HTMX, "HX-Current-URL": "http://testserver/batches/"}
    )
    assert answer.status_code == 200
    assert f'<tr id="batch-{batch.pk}" hx-swap-oob="true">' in text_of(answer)
    assert state_of(answer, f"batch-{batch.pk}") == "terminating"
    assert actions_of(answer, f"batch-{batch.pk}") == []
    assert "acted" in answer["HX-Trigger-After-Settle"]


def test_stopping_a_batch_from_its_own_page_gives_back_the_pages_head(desk: Desk, operator: Client) -> None:
    batch = make.batch(desk.task)
    current = {**HTMX, "HX-Current-URL": f"http://testserver/batches/{batch.pk}/?from=0"}
    answer = operator.post(f"/batches/{batch.pk}/stop/", REASON, headers=current)
    assert f'<section id="batch-{batch.pk}" class="head" hx-swap-oob="true">' in text_of(answer)


def test_who_why_and_from_where_stand_in_the_journal(desk: Desk, operator: Client) -> None:
    batch = make.batch(desk.task)
    operator.post(f"/batches/{batch.pk}/stop/", REASON)
    entry = JournalEntry.objects.get(object_type="batch", object_id=batch.pk, action="stopped")
    assert (entry.user, entry.reason, entry.via) == (operator.user, "wrong input file", "web")


@pytest.mark.parametrize("headers", [{}, HTMX])
@pytest.mark.parametrize("reason", ["", "   ", "x" * 501])
def test_nothing_is_done_without_a_reason(desk: Desk, operator: Client, reason: str, headers: dict) -> None:
    batch = make.batch(desk.task)
    answer = operator.post(f"/batches/{batch.pk}/stop/", {"reason": reason}, headers=headers)
    assert answer.status_code == 422
    assert 'id="id_reason_error"' in text_of(answer)
    assert Batch.objects.get(pk=batch.pk).state == "waiting"


def test_a_refused_stop_says_why_beside_the_fresh_row(desk: Desk, operator: Client) -> None:
    batch = make.end_batch(make.batch(desk.task))
    answer = operator.post(f"/batches/{batch.pk}/stop/", REASON, headers=HTMX)
    assert answer.status_code == 409
    assert state_of(answer, f"batch-{batch.pk}") == "success"
    assert actions_of(answer, f"batch-{batch.pk}") == ["rerun"]
    assert "only an unfinished batch that was not stopped yet can be stopped" in text_of(answer)


def test_a_refusal_without_htmx_is_a_page(desk: Desk, operator: Client) -> None:
    batch = make.batch(desk.task)
    answer = operator.post(f"/batches/{batch.pk}/rerun/", REASON)
    assert answer.status_code == 409
    assert "only a finished batch can be rerun" in text_of(answer)


def test_asking_for_what_is_not_possible_any_more_says_so_at_once(desk: Desk, operator: Client) -> None:
    batch = make.end_batch(make.batch(desk.task))
    answer = operator.get(f"/batches/{batch.pk}/stop/", headers=HTMX)
    assert answer.status_code == 409
    assert f"Batch {batch.pk} has state Success by now" in text_of(answer)
    assert "id_reason" not in text_of(answer)


def test_rerunning_a_batch_begins_another_and_leads_to_it(desk: Desk, operator: Client) -> None:
    batch = make.end_batch(make.batch(desk.task))
    answer = operator.post(f"/batches/{batch.pk}/rerun/", REASON)
    again = Batch.objects.get(rerun_of=batch)
    assert answer["Location"] == f"/batches/{again.pk}/"


def test_rerunning_from_the_list_stays_there_and_names_the_new_batch(desk: Desk, operator: Client) -> None:
    batch = make.end_batch(make.batch(desk.task))
    answer = operator.post(
        f"/batches/{batch.pk}/rerun/", REASON, headers={**HTMX, "HX-Current-URL": "http://testserver/batches/"}
    )
    again = Batch.objects.get(rerun_of=batch)
    assert f'href="/batches/{again.pk}/"' in text_of(answer)
    own = {**HTMX, "HX-Current-URL": f"http://testserver/batches/{batch.pk}/"}
    answer = operator.post(f"/batches/{batch.pk}/rerun/", REASON, headers=own)
    assert answer["HX-Redirect"] == f"/batches/{Batch.objects.latest('pk').pk}/"


def test_the_confirm_step_of_a_rerun_says_that_the_task_was_edited_since(desk: Desk, operator: Client) -> None:
    batch = make.end_batch(make.batch(desk.task))
    make.services.save_task(
        team=desk.team,
        group=desk.group,
        name="extract",
        content={"kind": "shell", "spec": {"command": "false"}},
    )
    page = text_of(operator.get(f"/batches/{batch.pk}/rerun/"))
    assert "A new batch begins, with 3 instances." in page
    assert "It runs revision 1 of the task" in page
    assert "The task has been edited since" in page


def test_one_instance_is_stopped_and_the_others_go_on(desk: Desk, operator: Client) -> None:
    batch = make.batch(desk.task)
    first, *others = make.start_batch(batch)
    assert "2 other unfinished instances of the batch go on." in text_of(
        operator.get(f"/instances/{first.pk}/stop/")
    )
    answer = operator.post(f"/instances/{first.pk}/stop/", REASON, headers=HTMX)
    assert state_of(answer, f"instance-{first.pk}") == "terminating"
    assert {Instance.objects.get(pk=each.pk).state for each in others} == {"running"}


def test_one_instance_is_rerun_and_its_batch_runs_again(desk: Desk, operator: Client) -> None:
    batch = make.end_batch(make.batch(desk.task), "failed")
    instance = batch.instances.first()
    own = {**HTMX, "HX-Current-URL": f"http://testserver/instances/{instance.pk}/"}
    assert "Execution 2 of this instance begins" in text_of(operator.get(f"/instances/{instance.pk}/rerun/"))
    answer = operator.post(f"/instances/{instance.pk}/rerun/", REASON, headers=own)
    assert f'<section id="instance-{instance.pk}" class="head" hx-swap-oob="true">' in text_of(answer)
    assert state_of(answer, f"instance-{instance.pk}") == "waiting"
    assert Batch.objects.get(pk=batch.pk).state == "running"


def test_a_broadcast_instance_whose_node_is_away_is_not_rerun_and_says_so(desk: Desk, operator: Client) -> None:
    batch = make.end_batch(make.batch(make.task(group=desk.group, mode="broadcast")))
    type(desk.node).objects.update(state=NodeState.OFFLINE)
    instance = batch.instances.get()
    assert "Node node-a is offline, so this will be refused." in text_of(
        operator.get(f"/instances/{instance.pk}/rerun/")
    )
    answer = operator.post(f"/instances/{instance.pk}/rerun/", REASON, headers=HTMX)
    assert answer.status_code == 409
    assert "a broadcast instance reruns only on its own node" in text_of(answer)


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("verb", ["stop", "rerun"])
def test_who_sees_it_but_may_not_is_told_which_permission_is_missing(
    desk: Desk, viewer: Client, verb: str, method: str
) -> None:
    batch = make.batch(desk.task)
    first = batch.instances.first().pk
    for address in (
        f"/batches/{batch.pk}/{verb}/",
        f"/batches/{batch.pk}/instances/{verb}/?instance={first}",
        f"/instances/{first}/{verb}/",
    ):
        answer = getattr(viewer, method)(address, REASON)
        assert answer.status_code == 403
        assert f"scheduling.{verb}_task" in text_of(answer)
    assert Batch.objects.get(pk=batch.pk).state == "waiting"


def test_a_denial_reaches_htmx_as_a_notice(desk: Desk, viewer: Client) -> None:
    batch = make.batch(desk.task)
    answer = viewer.post(f"/batches/{batch.pk}/stop/", REASON, headers=HTMX)
    assert (answer.status_code, answer["HX-Retarget"]) == (403, "#notices")
    assert "<html" not in text_of(answer)


@pytest.mark.parametrize("back", ["https://elsewhere.example/", "//elsewhere.example/", "javascript:alert(1)"])
def test_an_action_never_leads_to_another_site(desk: Desk, operator: Client, back: str) -> None:
    batch = make.batch(desk.task)
    answer = operator.post(f"/batches/{batch.pk}/stop/", {**REASON, "back": back})
    assert answer["Location"] == f"/batches/{batch.pk}/"


def test_an_action_leads_back_to_where_it_was_asked(desk: Desk, operator: Client) -> None:
    batch = make.batch(desk.task)
    answer = operator.post(f"/batches/{batch.pk}/stop/", {**REASON, "back": "/batches/?state=running"})
    assert answer["Location"] == "/batches/?state=running"


def test_a_form_without_its_token_is_refused(desk: Desk) -> None:
    batch = make.batch(desk.task)
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(make.user(team=desk.team))
    answer = browser.post(f"/batches/{batch.pk}/stop/", REASON)
    assert answer.status_code == 403
    assert "nothing was done" in text_of(answer)


# --- several instances -----------------------------------------------------------------------------


def test_the_chosen_instances_are_stopped_and_what_is_refused_drops_no_other(
    desk: Desk, operator: Client
) -> None:
    batch = make.batch(desk.task)
    first, second, third = make.start_batch(batch)
    chosen = f"?instance={first.pk}&instance={second.pk}"
    dialog = text_of(operator.get(f"/batches/{batch.pk}/instances/stop/{chosen}", headers=HTMX))
    assert f"Stop 2 instances of batch {batch.pk}" in dialog
    assert "2 running instances are told to end" in dialog
    make.end(first)
    answer = operator.post(
        f"/batches/{batch.pk}/instances/stop/", {**REASON, "instance": f"{first.pk},{second.pk}"}, headers=HTMX
    )
    assert answer.status_code == 200
    assert "1 instance is being stopped. 1 was refused:" in text_of(answer)
    assert f"Instance {first.pk} has state Success" in text_of(answer)
    assert "acted" in answer["HX-Trigger-After-Settle"]
    states = dict(batch.instances.values_list("pk", "state"))
    assert states == {first.pk: "success", second.pk: "terminating", third.pk: "running"}


def test_all_unsuccessful_instances_are_rerun_the_terminated_too(desk: Desk, operator: Client) -> None:
    batch = make.batch(make.task(group=desk.group, shards=["AA", "UA", "DL", "B6"]))
    failed, late, stopped, good = make.start_batch(batch)
    make.end(failed, "failed", may_retry=False)
    make.end(late, "timed_out", may_retry=False)
    services.stop_instance(stopped, by="ann", reason="wrong input file")
    make.end(stopped, "terminated")
    make.end(good)
    page = text_of(operator.get(f"/batches/{batch.pk}/"))
    assert "Rerun 3 unsuccessful instances" in page
    confirm = text_of(operator.get(f"/batches/{batch.pk}/instances/rerun/?which=unsuccessful"))
    assert "3 instances run again" in confirm
    chosen = f"{failed.pk},{late.pk},{stopped.pk},"
    assert f'name="instance" value="{chosen}"' in confirm
    answer = operator.post(f"/batches/{batch.pk}/instances/rerun/", {**REASON, "instance": chosen})
    assert "3 instances run again." in text_of(answer)
    states = dict(batch.instances.values_list("pk", "state"))
    assert states == {failed.pk: "waiting", late.pk: "waiting", stopped.pk: "waiting", good.pk: "success"}
    assert JournalEntry.objects.filter(action="rerun", reason="wrong input file").count() == 3


def test_when_all_of_several_are_refused_the_answer_is_a_refusal(desk: Desk, operator: Client) -> None:
    batch = make.batch(make.task(group=desk.group, mode="broadcast"))
    instance = make.end_batch(batch).instances.get()
    type(desk.node).objects.update(state=NodeState.OFFLINE)
    address = f"/batches/{batch.pk}/instances/rerun/"
    assert "will be refused: node-a" in text_of(operator.get(f"{address}?instance={instance.pk}"))
    answer = operator.post(address, {**REASON, "instance": instance.pk}, headers=HTMX)
    assert answer.status_code == 409
    assert "a broadcast instance reruns only on its own node" in text_of(answer)


def test_several_are_refused_when_none_is_chosen_or_none_can_be(desk: Desk, operator: Client) -> None:
    batch = make.batch(desk.task)
    instance = batch.instances.first()
    for query, why in (
        ("", "No instance was chosen."),
        (f"?instance={instance.pk}", "None of these has ended yet."),
    ):
        answer = operator.get(f"/batches/{batch.pk}/instances/rerun/{query}", headers=HTMX)
        assert answer.status_code == 409
        assert why in text_of(answer)
    answer = operator.post(f"/batches/{batch.pk}/instances/rerun/", {**REASON, "instance": instance.pk})
    assert answer.status_code == 409
    assert not JournalEntry.objects.filter(action="rerun").exists()


def test_an_instance_of_another_batch_is_not_found_among_the_chosen(desk: Desk, operator: Client) -> None:
    batch, other = make.batch(desk.task), make.batch(desk.task)
    for given in (other.instances.first().pk, "x", "99999999999999999999"):
        answer = operator.get(f"/batches/{batch.pk}/instances/stop/?instance={given}")
        assert answer.status_code == 404


def test_more_than_one_action_takes_are_refused_and_nothing_is_done(
    desk: Desk, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduling.services.several.MOST_INSTANCES", 2)
    batch = make.batch(desk.task)
    with pytest.raises(TooMany, match="at most 2 instances, and these are 3"):
        services.stop_instances(batch.instances.all(), by=operator.user)
    assert set(batch.instances.values_list("state", flat=True)) == {"waiting"}
