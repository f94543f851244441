import html
import re
import time
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from scheduling import services
from scheduling.models import Execution, Instance, LogChunk
from tests import factories as make
from tests.web.conftest import Desk
from tests.web.pages import HTMX, actions_of, element, shown, state_of, text_of
from tests.web.pages import live_address as address_of


def running(desk: Desk) -> tuple[Instance, Execution]:
    instance = make.batch(desk.task).instances.select_related("group", "node").first()
    return instance, make.start(instance)


def write(execution: Execution, sequence: int, text: str = "", dropped: int = 0) -> None:
    LogChunk.objects.create(
        execution=execution, sequence=sequence, text=text, dropped_bytes=dropped, written_at=timezone.now()
    )


def live_address(page: Any) -> str:
    """Where the page asks for what is new, with what it says of the log that it shows."""
    body = text_of(page)
    state = body[body.index('id="log-state"') :].partition("</div>")[0]
    return (
        address_of(page)
        + "?"
        + "&".join(f"{n}={v}" for n, v in re.findall(r'name="(\w+)" value="([^"]*)"', state))
    )


def lines_of(page: Any) -> list[str]:
    """The lines of output in an answer, as text."""
    found = re.findall(r'<div class="line".*?</a><span>(.*?)</span></div>', text_of(page), re.DOTALL)
    return [html.unescape(re.sub(r"<[^>]*>", "", line)) for line in found]


def test_it_shows_every_execution_and_the_log_of_the_latest(desk: Desk, operator: Client) -> None:
    instance, first = running(desk)
    write(first, 0, "the first try\n")
    make.end(instance, "failed", error="exit code 3", exit_code=3, may_retry=False)
    services.rerun_instance(instance, by=operator.user)
    second = make.start(instance)
    write(second, 0, "the second try\n")
    page = operator.get(f"/instances/{instance.pk}/")
    assert "exit code 3" in element(page, f"execution-{first.pk}")
    assert "the second try" in text_of(page)
    assert "the first try" not in text_of(page)
    assert "the first try" in text_of(operator.get(f"/instances/{instance.pk}/?execution=1"))


@pytest.mark.parametrize("execution", ["3", "0", "x", "-1", "99999999999999999999"])
def test_an_execution_that_it_does_not_have_is_not_found(desk: Desk, operator: Client, execution: str) -> None:
    instance, _ = running(desk)
    assert operator.get(f"/instances/{instance.pk}/?execution={execution}").status_code == 404


def test_one_that_never_ran_says_so(desk: Desk, operator: Client) -> None:
    instance = make.batch(desk.task).instances.first()
    page = operator.get(f"/instances/{instance.pk}/")
    assert "It has not run yet." in text_of(page)
    assert state_of(page, f"instance-{instance.pk}") == "waiting"
    assert actions_of(page, f"instance-{instance.pk}") == ["stop"]


@pytest.mark.parametrize("address", ["", "changes/", "stop/", "rerun/", "log/", "log/download/"])
def test_another_teams_instance_is_not_found(desk: Desk, outsider: Client, address: str) -> None:
    instance, _ = running(desk)
    assert outsider.get(f"/instances/{instance.pk}/{address}").status_code == 404


def test_output_is_text_never_markup_in_the_colours_of_a_terminal(desk: Desk, operator: Client) -> None:
    instance, execution = running(desk)
    write(execution, 0, "<script>alert(1)</script> \x1b[31mr<b>d\x1b[0m\n10 %\r20 %\n")
    page = text_of(operator.get(f"/instances/{instance.pk}/"))
    assert '<span>&lt;script&gt;alert(1)&lt;/script&gt; <span class="ansi31">r&lt;b&gt;d</span></span>' in page
    assert "<span>20 %</span>" in page
    assert "style=" not in page


def test_what_was_not_kept_is_a_visible_gap(desk: Desk, operator: Client) -> None:
    instance, execution = running(desk)
    write(execution, 0, "head\n")
    write(execution, 1, dropped=1021 * 1024 * 1024)
    write(execution, 2, "tail\n")
    page = text_of(operator.get(f"/instances/{instance.pk}/")).replace("\xa0", " ")
    gap = page.index("1021.0 MB not kept here: of one log the first 1.0 MB and the last 256.0 KB are")
    assert page.index("<span>head<") < gap < page.index("<span>tail<")


def test_while_it_runs_only_new_output_is_appended(desk: Desk, operator: Client) -> None:
    instance, execution = running(desk)
    write(execution, 0, "one\n")
    page = operator.get(f"/instances/{instance.pk}/")
    assert operator.get(live_address(page), headers=shown(page)).status_code == 204
    write(execution, 1, "two\n")
    answer = operator.get(live_address(page), headers=shown(page))
    assert answer.status_code == 200
    assert '<div hx-swap-oob="beforeend:#log"><div class="line" id="L2">' in text_of(answer)
    assert lines_of(answer) == ["two"]
    assert f'id="instance-{instance.pk}"' not in text_of(answer)
    assert operator.get(live_address(answer), headers=shown(answer)).status_code == 204


def test_a_line_without_its_end_is_replaced_when_more_of_it_is_written(desk: Desk, operator: Client) -> None:
    instance, execution = running(desk)
    write(execution, 0, "one\n10 %")
    page = operator.get(f"/instances/{instance.pk}/")
    write(execution, 1, "\r20 %\nthree\n")
    answer = operator.get(live_address(page), headers=shown(page))
    assert '<div class="line" id="L2" hx-swap-oob="true">' in text_of(answer)
    assert lines_of(answer) == ["20 %", "three"]


def test_the_end_brings_the_last_output_the_new_state_and_stops_asking(desk: Desk, operator: Client) -> None:
    instance, execution = running(desk)
    page = operator.get(f"/instances/{instance.pk}/")
    assert "every 1s" in text_of(page)
    write(execution, 0, "done\n")
    make.end(instance)
    answer = operator.get(live_address(page), headers=shown(page))
    assert answer.status_code == 286
    assert lines_of(answer) == ["done"]
    assert state_of(answer, f"instance-{instance.pk}") == "success"
    assert 'data-state="success"' in element(answer, f"execution-{execution.pk}")
    assert "Attempt 1 ended: success" in element(answer, "events")
    assert "every 1s" not in text_of(answer)


def test_a_new_attempt_is_shown_to_who_follows_and_announced_to_who_reads_an_old_one(
    desk: Desk, operator: Client
) -> None:
    instance, first = running(desk)
    write(first, 0, "the first try\n")
    following = operator.get(f"/instances/{instance.pk}/")
    looking_back = operator.get(f"/instances/{instance.pk}/?execution=1")
    make.end(instance, "failed", may_retry=False)
    services.rerun_instance(instance, by=operator.user)
    write(make.start(instance), 0, "the second try\n")
    answer = operator.get(live_address(following), headers=shown(following))
    assert '<section id="log-card" class="card log-card" hx-swap-oob="true">' in text_of(answer)
    assert lines_of(answer) == ["the second try"]
    assert "Attempt 2 has begun; this is its log." in text_of(answer)
    answer = operator.get(live_address(looking_back), headers=shown(looking_back))
    assert "the second try" not in text_of(answer)
    assert "Attempt 2 has begun since." in text_of(answer)


@pytest.fixture
def long_log(desk: Desk) -> tuple[Instance, Execution]:
    """An ended instance whose log is as large as is kept."""
    instance, execution = running(desk)
    line = "2013-11-21 14:30:02 reading <flights> of carrier DL & UA\n"
    for sequence in range(20):
        write(execution, sequence, line * (65536 // len(line)) + f"ValueError {sequence}\n")
    make.end(instance)
    return instance, execution


LAST = 20 * (65536 // 57 + 1)


def test_a_log_as_large_as_is_kept_is_opened_at_its_end_quickly_and_read_backwards(
    long_log: tuple[Instance, Execution], operator: Client, django_assert_num_queries: Any
) -> None:
    instance, _ = long_log
    operator.get(f"/instances/{instance.pk}/")
    began = time.process_time()
    # Session, user, the instance, its executions, the user's roles, the log's index and chunks, the journal.
    with django_assert_num_queries(9):
        page = operator.get(f"/instances/{instance.pk}/")
    # Of the processor: the clock also counts whatever else the machine does.
    assert time.process_time() - began < 0.2
    assert len(page.content) < 500_000
    assert len(lines_of(page)) == 1000
    assert f'id="L{LAST}"' in text_of(page)
    [before] = re.findall(r'id="earlier".*?before=(\d+)', text_of(page))
    part = operator.get(f"/instances/{instance.pk}/log/?execution=1&before={before}", headers=HTMX)
    assert text_of(part).strip().startswith('<a class="button part" id="earlier"')
    assert f'id="L{int(before) - 1}"' in text_of(part)
    assert f'id="L{before}"' not in text_of(part)


def test_a_line_is_linked_to_and_shown_with_what_is_around_it(
    long_log: tuple[Instance, Execution], operator: Client
) -> None:
    instance, _ = long_log
    page = text_of(operator.get(f"/instances/{instance.pk}/?execution=1&line=5000"))
    assert f'<a href="/instances/{instance.pk}/?execution=1&amp;line=5000#L5000"' in page
    assert 'id="L4970"' in page
    assert 'id="L4969"' not in page
    assert 'id="later"' in page
    assert "data-follow" not in page
    # What comes in meanwhile is not put behind lines that it does not follow.
    assert 'name="after"' not in page
    last = operator.get(f"/instances/{instance.pk}/log/?execution=1&starting={LAST - 1}", headers=HTMX)
    assert len(lines_of(last)) == 2
    assert 'name="after"' in text_of(last)


def test_a_search_goes_over_the_whole_log_and_from_hit_to_hit(
    long_log: tuple[Instance, Execution], operator: Client
) -> None:
    instance, _ = long_log
    page = text_of(operator.get(f"/instances/{instance.pk}/?execution=1&q=valueerror"))
    assert "Hit <b>1</b> of 20, in line 1150" in page
    assert "<mark>ValueError</mark> 0" in page
    third = operator.get(f"/instances/{instance.pk}/log/?execution=1&q=valueerror&hit=20", headers=HTMX)
    assert f"Hit <b>20</b> of 20, in line {LAST}" in text_of(third)
    assert "q=valueerror&amp;hit=1" in text_of(third)
    nothing = text_of(operator.get(f"/instances/{instance.pk}/?q=<nowhere>"))
    assert "Nothing in this log holds “&lt;nowhere&gt;”." in nothing


def test_a_log_is_downloaded_as_it_was_written_with_its_gaps_in_words(desk: Desk, operator: Client) -> None:
    instance, execution = running(desk)
    write(execution, 0, "\x1b[31mred\x1b[0m <b>\n")
    write(execution, 1, dropped=5)
    answer = operator.get(f"/instances/{instance.pk}/log/download/?execution=1")
    assert answer["Content-Type"] == "text/plain; charset=utf-8"
    assert (
        answer["Content-Disposition"] == f'attachment; filename="extract-instance-{instance.pk}-attempt-1.log"'
    )
    body = b"".join(answer.streaming_content).decode()
    assert body.startswith("\x1b[31mred\x1b[0m <b>\n\n… 5")
    waiting = make.batch(desk.task).instances.first()
    assert operator.get(f"/instances/{waiting.pk}/log/download/").status_code == 404


def test_what_happened_says_who_asked_and_why(desk: Desk, operator: Client) -> None:
    instance, _ = running(desk)
    make.end(instance, "failed", error="exit code 3", may_retry=False)
    services.rerun_instance(instance, by=operator.user, reason="the disk is free again")
    events = element(operator.get(f"/instances/{instance.pk}/"), "events")
    told = ["Batch begun", "Attempt 1 began on node-a", "Attempt 1 ended: failed", "exit code 3"]
    told += [f"Rerun of instance {instance.pk} asked", "the disk is free again"]
    places = [events.index(each) for each in told]
    assert places == sorted(places)


def test_a_part_that_is_opened_as_a_page_leads_to_the_page(desk: Desk, operator: Client) -> None:
    instance, _ = running(desk)
    answer = operator.get(f"/instances/{instance.pk}/log/?execution=1&before=7")
    assert answer["Location"] == f"/instances/{instance.pk}/?execution=1&line=7"


def test_an_instance_shows_execution_ids_results_and_what_it_was_given(desk: Desk, operator: Client) -> None:
    task = make.task(
        group=desk.group,
        parameters={"table": "flights_${data_date:%Y%m}", "columns": ["a", None], "full": True},
        spec={"command": "load $PARAM_TABLE", "secrets": ["TOKEN"]},
        timezone="UTC",
    )
    batch = make.batch(task, parameters={"full": False})
    [instance] = make.start_batch(batch)
    make.end(instance, result={"rows": 3, "ok": True})
    [execution] = instance.executions.all()

    page = html.unescape(text_of(operator.get(f"/instances/{instance.pk}/")))
    assert f'<span class="id">{execution.pk}</span>' in page
    for text in ('["a", null]', "<code>false</code>", "TOKEN=***", "load $PARAM_TABLE"):
        assert text in page
    assert re.search(r"PARAM_TABLE=flights_\d{6}\n", page)
    assert '{"ok": true, "rows": 3}' in page

    page = html.unescape(text_of(operator.get(f"/batches/{batch.pk}/")))
    assert f'title="ID of the newest execution">{execution.pk}<' in page
    for text in ('["a", null]', "TOKEN=***", '{"ok": true, "rows": 3}'):
        assert text in page
    assert f'id="instance-{instance.pk}"' in text_of(
        operator.get(f"/batches/{batch.pk}/?instance={execution.pk}")
    )
