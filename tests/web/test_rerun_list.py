"""The list of reruns downstream."""

from __future__ import annotations

from django.test import Client

from tests.web.pages import text_of


def test_the_navigation_leads_to_it(operator: Client) -> None:
    said = text_of(operator.get("/reruns/"))
    assert 'href="/reruns/" aria-current="page"' in said
    assert "There is no rerun yet." in said
