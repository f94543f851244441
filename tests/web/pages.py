"""Reads pages as an operator would: by their marks."""

from __future__ import annotations

import re
from typing import Any

HTMX = {"HX-Request": "true"}


def text_of(response: Any) -> str:
    return response.content.decode()


def marks(response: Any, kind: str) -> list[int]:
    """The ids of the rows of `kind` on a page, in order."""
    return [int(pk) for pk in re.findall(rf'<tr id="{kind}-(\d+)"', text_of(response))]


def element(response: Any, mark: str) -> str:
    """The row, section, aside or list with the id `mark`, as it stands in the page."""
    found = re.search(rf'<(tr|section|aside|dl)\b[^>]*? id="{mark}".*?</\1>', text_of(response), re.DOTALL)
    assert found, f"no {mark} on the page"
    return found.group()


def words_of(response: Any, mark: str) -> str:
    """What a reader sees of the row or section `mark`."""
    return " ".join(re.sub(r"<[^>]*>", " ", element(response, mark)).split())


def state_of(response: Any, mark: str) -> str:
    found = re.search(r'class="state" data-state="(\w+)"', element(response, mark))
    assert found
    return found.group(1)


def actions_of(response: Any, mark: str) -> list[str]:
    return re.findall(r'data-action="(\w+)"', element(response, mark))


def shown(response: Any) -> dict[str, str]:
    """The headers that a page's live view sends."""
    found = re.search(r"""hx-headers='{"X-Shown": "([^"]*)"}'""", text_of(response))
    assert found, "the page has no live view"
    return {**HTMX, "X-Shown": found.group(1)}


def live_address(response: Any) -> str:
    found = re.search(r'id="live" hidden hx-get="([^"]*)"', text_of(response))
    assert found, "the page has no live view"
    return found.group(1).replace("&amp;", "&")


def asked_for(client: Any, page: str, mark: str) -> Any:
    """The panel with the id `mark`, which `page` asks for once it stands."""
    found = re.search(r'hx-get="([^"]*)" hx-trigger="load', element(client.get(page), mark))
    assert found, f"the page does not ask for {mark}"
    return client.get(found.group(1), headers=HTMX)
