"""What the stories do again and again."""

from __future__ import annotations

from playwright.sync_api import Page


def sign_in(page: Page, address: str, *, name: str = "mei") -> None:
    """Sign in as `name`, whom `factories.user` made, and read the page at `address`."""
    page.goto(address)
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill("secret")
    page.get_by_role("button", name="Sign in").click()
    loaded(page)


def loaded(page: Page) -> None:
    """Wait until the page answers as htmx makes it; before that its links lead to pages, which is right too."""
    page.wait_for_load_state("load")
