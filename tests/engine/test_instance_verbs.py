"""Every verb on an instance, from every state: what it changes, and what it refuses."""

from __future__ import annotations

import uuid

import pytest
from django.utils import timezone

from scheduling import transitions
from scheduling.errors import TransitionRefused
from scheduling.models import Execution, Instance, JournalEntry
from scheduling.states import INSTANCE, InstanceState, Outcome
from tests import factories
from tests.engine.states import InEveryState, changed, instance_in
from tests.engine.support import row

TOKEN = uuid.uuid4()

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("state", InstanceState.values)
def test_start_takes_only_a_waiting_instance(in_every_state: InEveryState, state: str):
    instance = in_every_state.instance(state)
    # Even with a valid claim on it, which no other state can have.
    Instance.objects.filter(pk=instance.pk).update(claimed=True, token=TOKEN, node=factories.node())
    before, batch_before = row(instance), row(instance.batch)
    executions = list(Execution.objects.values())
    started = transitions.start(
        batch=instance.batch_id, instance=instance.pk, token=TOKEN, worker=1, timeout=None
    )
    if state == "waiting":
        assert started is not None
        assert changed(before, instance) == {"state", "executions_count", "started_at"}
        assert changed(batch_before, instance.batch) == {"state", "listed_state", "started_at"}
        [execution] = instance.executions.all()
        assert (execution.pk, execution.token, execution.ended_at) == (started.execution_id, TOKEN, None)
        assert execution.started_at == row(instance)["started_at"] == row(instance.batch)["started_at"]
    else:
        assert started is None
        assert (row(instance), row(instance.batch)) == (before, batch_before)
        assert list(Execution.objects.values()) == executions


ENDS = {
    ("running", "success"): "success",
    ("running", "failed"): "failed",
    ("running", "timed_out"): "timed_out",
    ("running", "terminated"): "failed",
    ("running", "lost"): "failed",
    ("terminating", "success"): "success",
    ("terminating", "failed"): "failed",
    ("terminating", "timed_out"): "timed_out",
    ("terminating", "terminated"): "terminated",
    ("terminating", "lost"): "terminated",
}
COUNTER = {"success": "succeeded", "failed": "failed", "timed_out": "timed_out", "terminated": "terminated"}


@pytest.mark.parametrize("outcome", Outcome.values)
@pytest.mark.parametrize("state", InstanceState.values)
def test_end_takes_only_what_runs_and_records_how_it_ended(
    in_every_state: InEveryState, state: str, outcome: str
):
    instance = in_every_state.instance(state)
    before, batch_before = row(instance), row(instance.batch)
    execution = instance.executions.first()
    executions = list(Execution.objects.values())
    ended = transitions.end(
        batch=instance.batch_id,
        instance=instance.pk,
        execution=execution.pk if execution else 0,
        token=instance.token,
        outcome=outcome,
        exit_code=3,
        error="what was said",
        reason="why",
        result={"rows": 7},
        may_retry=False,
    )
    expected = ENDS.get((state, outcome))
    if expected is None:
        assert ended is None
        assert (row(instance), row(instance.batch)) == (before, batch_before)
        assert list(Execution.objects.values()) == executions
        return
    assert ended == transitions.Ended(expected, retry=False, batch_ended=False)
    assert row(instance)["state"] == expected
    # A stop that was obeyed keeps who asked for it, and why.
    kept = expected == "terminated" and before["reason"]
    assert changed(before, instance) == {"state", "ended_at"} | (set() if kept else {"reason"})
    assert changed(batch_before, instance.batch) == {COUNTER[expected]}
    assert execution is not None
    execution.refresh_from_db()
    assert execution.outcome == ("terminated" if expected == "terminated" else outcome)
    assert (execution.exit_code, execution.error, execution.result) == (3, "what was said", {"rows": 7})
    assert execution.ended_at == row(instance)["ended_at"]


@pytest.mark.parametrize("outcome", ["failed", "timed_out", "lost", "terminated"])
def test_end_puts_a_failure_with_retries_left_back_into_the_queue(outcome: str):
    instance = instance_in("running", retry_count=2)
    before, batch_before = row(instance), row(instance.batch)
    factories.end(instance, outcome, retry_after=30)
    assert changed(before, instance) == {
        "state",
        "cause",
        "reason",
        "claimed",
        "started_at",
        "run_after",
        "retries_left",
    } - ({"reason"} if not row(instance)["reason"] else set())
    assert (instance.state, instance.retries_left, instance.claimed) == ("waiting", 1, False)
    assert instance.cause == ("lost" if outcome == "lost" else "retry")
    assert (instance.run_after - timezone.now()).total_seconds() == pytest.approx(30, abs=5)
    assert row(instance.batch) == batch_before | {"state": "waiting", "listed_state": "waiting"}, (
        "all its instances wait"
    )


@pytest.mark.parametrize("outcome", ["failed", "timed_out", "lost"])
def test_an_instance_that_was_told_to_stop_is_not_retried(outcome: str):
    instance = instance_in("terminating", others=1, retry_count=5)
    assert instance.batch.state == "running" or row(instance.batch)["state"] == "running"
    factories.end(instance, outcome)
    assert instance.is_finished
    assert row(instance.batch)["state"] == "running"


@pytest.mark.parametrize("state", InstanceState.values)
def test_stop_instance_takes_only_what_waits_or_runs(in_every_state: InEveryState, state: str):
    instance = in_every_state.instance(state)
    before, batch_before = row(instance), row(instance.batch)
    journal = JournalEntry.objects.count()
    if state in {"waiting", "running"}:
        transitions.stop_instance(instance.pk, by="ann", reason="wrong shard")
        after = row(instance)
        assert after["reason"] == "Stopped by ann: wrong shard"
        if state == "waiting":
            assert after["state"] == "terminated"
            assert changed(before, instance) == {"state", "ended_at", "reason"}
            assert changed(batch_before, instance.batch) == {"terminated"}
        else:
            assert after["state"] == "terminating"
            assert changed(before, instance) == {"state", "reason"}
            assert row(instance.batch) == batch_before
        assert JournalEntry.objects.count() == journal + 1
    else:
        with pytest.raises(TransitionRefused, match=r"only an unfinished one that was not stopped yet"):
            transitions.stop_instance(instance.pk, by="ann", reason="")
        assert (row(instance), row(instance.batch)) == (before, batch_before)
        assert JournalEntry.objects.count() == journal


@pytest.mark.parametrize("state", InstanceState.values)
def test_rerun_instance_takes_only_what_has_ended(in_every_state: InEveryState, state: str):
    instance = in_every_state.instance(state)
    before, batch_before = row(instance), row(instance.batch)
    executions = list(Execution.objects.values())
    journal = JournalEntry.objects.count()

    def rerun() -> Instance:
        return transitions.rerun_instance(instance.pk, by="ann", reason="", prefer_node_for=5, retries=2)

    if state in INSTANCE.final:
        rerun()
        after = row(instance)
        assert (after["state"], after["cause"], after["reason"]) == ("waiting", "rerun", "")
        assert (after["retries_left"], after["claimed"], after["started_at"]) == (2, False, None)
        assert changed(before, instance) <= {
            "state",
            "cause",
            "reason",
            "claimed",
            "started_at",
            "ended_at",
            "retries_left",
            "run_after",
            "prefers_node_until",
        }
        ran = batch_before["state"] == "running"
        assert changed(batch_before, instance.batch) == {COUNTER[state]} | (
            {"state", "listed_state"} if ran else set()
        )
        assert row(instance.batch)["state"] == "waiting", "as the other instance does"
        assert JournalEntry.objects.count() == journal + 1
    else:
        with pytest.raises(TransitionRefused, match="only a finished instance can be rerun"):
            rerun()
        assert (row(instance), row(instance.batch)) == (before, batch_before)
        assert JournalEntry.objects.count() == journal
    assert list(Execution.objects.values()) == executions


@pytest.mark.parametrize("state", InstanceState.values)
def test_giving_up_a_node_ends_only_what_waits_for_it(in_every_state: InEveryState, state: str):
    instance = in_every_state.instance(state)
    node = factories.node(group=instance.group)
    Instance.objects.filter(pk=instance.pk).update(node=node, pinned=True)
    before, batch_before = row(instance), row(instance.batch)
    assert transitions.give_up_waiting(node, instance.batch_id, reason="it left") is None
    if state == "waiting":
        assert changed(before, instance) == {"state", "ended_at", "reason"}
        assert (row(instance)["state"], row(instance)["reason"]) == ("terminated", "it left")
        assert changed(batch_before, instance.batch) == {"terminated"}
    else:
        assert (row(instance), row(instance.batch)) == (before, batch_before)


def test_giving_up_the_last_instance_ends_the_batch_with_the_reason():
    instance = instance_in("waiting")
    node = factories.node(group=instance.group)
    Instance.objects.filter(pk=instance.pk).update(node=node, pinned=True)
    assert transitions.give_up_waiting(node, instance.batch_id, reason="it left") == instance.batch
    instance.batch.refresh_from_db()
    assert (instance.batch.state, instance.batch.reason) == ("failed", "it left")
