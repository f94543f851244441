"""Filters that people keep under names of their own."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.test import Client

from scheduling import services
from scheduling.models import SavedFilter
from tests.web.conftest import Desk
from tests.web.pages import HTMX, text_of


def save(client: Client, name: str, query: str = "tab=basic&state=failed") -> Any:
    return client.post("/saved-filters/", {"name": name, "query": query}, headers=HTMX)


def change(client: Client, what: str, saved: SavedFilter, **given: str) -> Any:
    return client.post(f"/saved-filters/{saved.pk}/{what}/", given, headers=HTMX)


def names(client: Client) -> list[str]:
    return list(SavedFilter.objects.filter(user=client.user).values_list("name", flat=True))


def test_a_filter_is_kept_as_the_address_that_applies_it(desk: Desk, operator: Client) -> None:
    save(operator, "  Failures  of today ", "window=1d&state=failed&older=1.2&nonsense=1&task=extract")
    saved = SavedFilter.objects.get()
    assert (saved.name, saved.query) == ("Failures of today", "tab=basic&task=extract&state=failed&window=1d")
    page = operator.get("/batches/")
    assert 'href="/batches/?tab=basic&amp;task=extract&amp;state=failed&amp;window=1d"' in text_of(page)
    assert operator.get(f"/batches/?{saved.query}").status_code == 200


def test_saving_under_a_name_again_replaces_what_it_meant(desk: Desk, operator: Client) -> None:
    save(operator, "mine")
    save(operator, "mine", "tab=workflow")
    assert SavedFilter.objects.get().query == "tab=workflow"


@pytest.mark.parametrize(
    ("name", "query", "said"),
    [
        (" ", "tab=basic", "Give the filter a name"),
        ("\0", "tab=basic", "Give the filter a name"),
        ("x" * 61, "tab=basic", "at most 60 characters"),
        ("broken", "state=asleep", "The filter is not valid"),
    ],
)
def test_what_cannot_be_kept_is_refused_in_the_menu(
    desk: Desk, operator: Client, name: str, query: str, said: str
) -> None:
    answer = save(operator, name, query)
    assert answer.status_code == 422
    assert said in text_of(answer)
    assert names(operator) == []


def test_a_menu_stays_one_that_can_be_read(
    desk: Desk, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduling.services.saved.MOST_SAVED", 1)
    save(operator, "one")
    assert "1 filters are saved; delete one" in text_of(save(operator, "two"))
    assert save(operator, "one", "tab=workflow").status_code == 200


def test_a_filter_is_renamed_but_not_to_a_name_that_is_taken(desk: Desk, operator: Client) -> None:
    save(operator, "one")
    save(operator, "two")
    one = SavedFilter.objects.get(name="one")
    assert change(operator, "rename", one, name="first").status_code == 200
    answer = change(operator, "rename", one, name="two")
    assert (answer.status_code, "Another filter is named two" in text_of(answer)) == (422, True)
    assert names(operator) == ["first", "two"]


def test_a_filter_is_deleted(desk: Desk, operator: Client) -> None:
    save(operator, "one")
    answer = change(operator, "delete", SavedFilter.objects.get())
    assert "None yet" in text_of(answer)
    assert names(operator) == []


def test_the_default_applies_when_the_page_is_opened_bare(desk: Desk, operator: Client) -> None:
    save(operator, "one")
    save(operator, "two", "tab=workflow")
    one, two = SavedFilter.objects.order_by("name")
    change(operator, "default", one)
    change(operator, "default", two)
    assert list(SavedFilter.objects.filter(is_default=True)) == [two]
    assert operator.get("/batches/").headers["Location"] == "/batches/?tab=workflow"
    assert operator.get("/batches/?tab=basic").status_code == 200
    change(operator, "default", two, default="0")
    assert operator.get("/batches/").status_code == 200


def test_nobody_reaches_the_filters_of_another(desk: Desk, operator: Client) -> None:
    save(operator, "mine")
    saved = SavedFilter.objects.get()
    services.make_default(saved, True)
    other = desk.sign_in("owner")
    for what in ("rename", "default", "delete"):
        assert change(other, what, saved, name="theirs").status_code == 404
    assert "mine" not in text_of(other.get("/batches/"))
    assert names(operator) == ["mine"]
    assert save(other, "mine").status_code == 200


def test_without_javascript_one_comes_back_to_the_list(desk: Desk, operator: Client) -> None:
    answer = operator.post("/saved-filters/", {"name": "one", "query": "tab=basic&state=failed"})
    assert answer.headers["Location"] == "/batches/?tab=basic&state=failed"
    assert operator.post("/saved-filters/", {"name": "", "query": ""}).status_code == 409


def test_the_database_keeps_names_and_the_default_unique(desk: Desk, operator: Client) -> None:
    save(operator, "one")
    own = {"user": operator.user, "page": "batches", "query": ""}
    with pytest.raises(IntegrityError, match="saved_filter_name_once"), transaction.atomic():
        SavedFilter.objects.create(name="one", **own)
    SavedFilter.objects.update(is_default=True)
    with pytest.raises(IntegrityError, match="saved_filter_one_default"), transaction.atomic():
        SavedFilter.objects.create(name="two", is_default=True, **own)
