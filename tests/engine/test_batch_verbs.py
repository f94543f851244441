"""Every verb on a batch, from every state: what it changes, and what it refuses."""

from __future__ import annotations

import pytest

from scheduling import transitions
from scheduling.models import Batch, Instance, JournalEntry
from scheduling.states import BATCH, BatchState
from tests import factories
from tests.engine.states import InEveryState, changed, refused_without_a_trace
from tests.engine.support import row

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("state", BatchState.values)
def test_stop_batch_takes_only_what_is_unfinished_and_was_not_stopped(in_every_state: InEveryState, state: str):
    batch = in_every_state.batch(state)
    before = row(batch)

    def stop() -> Batch:
        return transitions.stop_batch(batch.pk, by="ann", reason="wrong file")

    if state == "waiting":
        assert stop().state == "failed"
        assert changed(before, batch) == {
            "state",
            "listed_state",
            "ended_at",
            "reason",
            "terminated",
            "stopped",
        }
        assert set(batch.instances.values_list("state", flat=True)) == {"terminated"}
    elif state == "running":
        assert stop().state == "terminating"
        assert changed(before, batch) == {"state", "listed_state", "reason", "stopped"}
        assert set(batch.instances.values_list("state", flat=True)) == {"terminating"}
    else:
        refused_without_a_trace(batch, stop, "only an unfinished batch that was not stopped yet can be stopped")
        return
    assert row(batch)["reason"] == "Stopped by ann: wrong file"


@pytest.mark.parametrize("state", BatchState.values)
@pytest.mark.parametrize("ratio", [0, 100])
def test_only_what_ended_by_its_instances_is_judged_anew(in_every_state: InEveryState, state: str, ratio: int):
    batch = in_every_state.batch(state)
    before = row(batch)

    def judge() -> Batch:
        return transitions.judge_anew(batch.pk, success_ratio=ratio, by="ann", reason="late data")

    if state not in {"success", "failed"}:
        refused_without_a_trace(batch, judge, "only one that ended as a success or failed")
        return
    expected = "failed" if state == "failed" and ratio == 100 else "success"
    assert judge().state == expected
    assert changed(before, batch) == {"reason"} | (
        {"state", "listed_state"} if expected != state else set()
    ) | ({"success_ratio"} if ratio != 100 else set())
    assert row(batch)["reason"] == f"Judged anew by ann, needing {ratio} %: late data"
    assert JournalEntry.objects.get(action="judged").details == {
        "state_before": state,
        "state_after": expected,
        "ratio_before": 100,
        "ratio_after": ratio,
        "succeeded": 2 if state == "success" else 0,
        "total": 2,
    }


@pytest.mark.parametrize("state", BatchState.values)
@pytest.mark.parametrize("wanted", [BatchState.SUCCESS, BatchState.FAILED])
def test_only_what_ended_otherwise_is_marked(in_every_state: InEveryState, state: str, wanted: BatchState):
    batch = in_every_state.batch(state)
    before = row(batch)

    def mark() -> Batch:
        return transitions.mark(batch.pk, wanted, by="ann", reason="seen by eye")

    if state not in {"success", "failed"} - {wanted.value}:
        says = "already" if state == wanted else "only one that ended as a success or failed"
        refused_without_a_trace(batch, mark, says)
        return
    assert mark().state == wanted
    assert changed(before, batch) == {"state", "listed_state", "reason"}
    assert row(batch)["reason"] == f"Marked as {wanted.value} by ann: seen by eye"
    entry = JournalEntry.objects.get(action="marked")
    assert (entry.reason, entry.details) == (
        "seen by eye",
        {"state_before": state, "state_after": wanted.value},
    )


def test_no_instance_is_rerun_in_a_batch_that_is_being_stopped(in_every_state: InEveryState):
    batch = in_every_state.batch("terminating")
    instance = batch.instances.first()
    assert instance is not None
    factories.end(instance, "failed")

    def rerun() -> Instance:
        return transitions.rerun_instance(instance.pk, by="ann", reason="", prefer_node_for=None, retries=0)

    refused_without_a_trace(batch, rerun, "rerun the instance when the batch has ended")


@pytest.mark.parametrize("state", BatchState.values)
def test_only_a_held_unfinished_batch_is_released(in_every_state: InEveryState, state: str):
    batch = in_every_state.batch(state)
    before = row(batch), list(batch.instances.values())
    assert not transitions.release_held(batch.pk)
    assert (row(batch), list(batch.instances.values())) == before
    Batch.objects.filter(pk=batch.pk).update(held=True)
    assert transitions.release_held(batch.pk) == (state not in BATCH.final)
    assert changed(before[0], batch) == ({"held"} if state in BATCH.final else set())
