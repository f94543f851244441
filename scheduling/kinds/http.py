"""HTTP jobs: one request, judged by the status of the response; its body goes to the log.

`url`, `headers` and `body` may hold parameters and built-ins (`${data_date-1d:%Y%m%d}`, as in
`scheduling.parameters`) and secrets: `${secret:NAME}` is the node's TAILRACE_SECRET_<NAME>, which the
log shows as ***. What is put into a URL is percent-encoded; in a JSON body it goes into its texts.
Redirects are not followed, so that no secret goes to another place than the one named.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, ClassVar
from urllib.parse import quote

import httpx
from django.utils.translation import gettext as _

from scheduling import parameters, reasons
from scheduling.jobs import JobContext, JobFailed, JobStopped
from scheduling.kinds.base import MASK, Kind, SpecReader, secret
from scheduling.reasons import said

LOGGED_BYTES = 64 * 1024
"""The most of a response's body that the log shows."""

CONNECT_TIMEOUT = 10.0
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_SECRET = re.compile(r"\$\{secret:([^{}]*)\}")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_POLL = 0.05


class HttpKind(Kind):
    """Sends one request; any 2xx, or a status in `expect`, is success."""

    name: ClassVar[str] = "http"
    fields: ClassVar[Mapping[str, bool]] = {
        "url": True,
        "method": False,
        "headers": False,
        "body": False,
        "expect": False,
        "connect_timeout": False,
    }
    uses_connection: ClassVar[bool] = False

    def clean(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """See `Kind.clean`. `expect` is a status or a list of them, `connect_timeout` seconds (10)."""
        reader = SpecReader(self, spec)
        return reader.finish(
            url=_url(reader),
            method=_method(reader),
            headers=_headers(reader),
            body=_body(reader),
            expect=_expect(reader),
            connect_timeout=_connect_timeout(reader),
        )

    def run(self, spec: Mapping[str, Any], context: JobContext) -> dict[str, int]:
        """See `Kind.run`. The result is `{"status": …, "bytes": …}`."""
        try:
            request = _request(spec, context)
        except (parameters.ParameterError, httpx.InvalidURL, ValueError) as error:
            raise JobFailed(context.log.redacted(said(reasons.REQUEST_IMPOSSIBLE, error=error))) from error
        wait = float(spec.get("connect_timeout", CONNECT_TIMEOUT))
        # A loop of our own, not asyncio.run: that one waits at its end for a name look-up that hangs.
        loop = asyncio.new_event_loop()
        try:
            status, size = loop.run_until_complete(_until_stopped(_exchange(request, wait, context), context))
        except httpx.HTTPError as error:
            problem = said(reasons.NO_ANSWER, host=request.url.host, error=str(error) or type(error).__name__)
            raise JobFailed(context.log.redacted(problem)) from error
        finally:
            _close(loop)
        result = {"status": status, "bytes": size}
        expected = spec.get("expect")
        if not (status in expected if expected else 200 <= status < 300):
            wanted = ", ".join(map(str, expected)) if expected else "2xx"
            raise JobFailed(said(reasons.WRONG_STATUS, status=status, expected=wanted), result=result)
        return result

    def rendered(
        self, spec: Mapping[str, Any], parameters: Mapping[str, Any], builtins: Mapping[str, Any]
    ) -> str:
        """See `Kind.rendered`: the request line, the headers and the body."""
        method, url, headers, body = _filled(spec, {**parameters, **builtins}, lambda _name, _quoted: MASK)
        lines = [f"{method} {url}", *(f"{name}: {value}" for name, value in headers.items())]
        if body is not None:
            lines += ["", body if isinstance(body, str) else json.dumps(body, ensure_ascii=False, indent=2)]
        return "\n".join(lines)


async def _until_stopped[T](work: Coroutine[Any, Any, T], context: JobContext) -> T:
    """The outcome of `work`; cancels it and raises JobStopped when a stop is asked first."""
    task = asyncio.ensure_future(work)
    while not task.done():
        await asyncio.wait([task], timeout=_POLL)
        if context.stop_requested and not task.done():
            task.cancel()
            await asyncio.wait([task])
            raise JobStopped
    return await task


async def _exchange(request: httpx.Request, connect_timeout: float, context: JobContext) -> tuple[int, int]:
    """Send the request and log the answer; its status and the size of its body."""
    # How long an answer may take is the task's time-out to say.
    timeout = httpx.Timeout(None, connect=connect_timeout)
    context.log.write(f"{request.method} {request.url}\n")
    async with httpx.AsyncClient(timeout=timeout, follow_redirects=False) as client:
        response = await client.send(request, stream=True)
        try:
            context.log.write(f"{response.http_version} {response.status_code} {response.reason_phrase}\n")
            size = await _log_body(response, context)
        finally:
            await response.aclose()
    return response.status_code, size


async def _log_body(response: httpx.Response, context: JobContext) -> int:
    size = 0
    async for piece in response.aiter_bytes():
        if size < LOGGED_BYTES:
            context.log.write_bytes(piece[: LOGGED_BYTES - size])
        size += len(piece)
    if size > LOGGED_BYTES:
        context.log.write(f"\n({size - LOGGED_BYTES:,} more bytes not shown)\n")
    elif size:
        context.log.write("\n")
    return size


def _close(loop: asyncio.AbstractEventLoop) -> None:
    """Let what an exception interrupted close its connections, then close the loop."""
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


type _Quote = Callable[[str], str]


def _request(spec: Mapping[str, Any], context: JobContext) -> httpx.Request:
    """The request with everything filled in; raises ParameterError, InvalidURL or JobFailed."""

    def revealed(name: str, quoted: _Quote) -> str:
        value = secret(name, context)
        context.log.redact(quoted(value), json.dumps(value)[1:-1])
        return quoted(value)

    method, url, headers, body = _filled(spec, {**context.parameters, **context.builtins}, revealed)
    content = {} if body is None else {"content": body} if isinstance(body, str) else {"json": body}
    return httpx.Request(method, url, headers=headers, **content)


def _filled(
    spec: Mapping[str, Any], values: Mapping[str, Any], revealed: Callable[[str, _Quote], str]
) -> tuple[str, str, dict[str, str], Any]:
    """Method, URL, headers and body with `values` and the secrets that `revealed` gives.

    Raises ParameterError, ValueError, and whatever `revealed` raises.
    """

    def filled(text: str, where: str, quoted: _Quote = str) -> str:
        # Secrets last and piece by piece: what is in one is never an expression itself.
        pieces = _SECRET.split(text)
        for index, piece in enumerate(pieces):
            if index % 2:
                pieces[index] = revealed(piece, quoted)
            else:
                pieces[index] = parameters.expand_text(piece, values, where=where, quote=quoted)
        return "".join(pieces)

    def filled_in(value: Any) -> Any:
        if isinstance(value, str):
            return filled(value, "body")
        if isinstance(value, dict):
            return {key: filled_in(inner) for key, inner in value.items()}
        return [filled_in(inner) for inner in value] if isinstance(value, list) else value

    headers = {"User-Agent": "Tailrace"}
    for name, value in spec.get("headers", {}).items():
        headers[name] = filled(value, f"header {name}")
        if not headers[name].isprintable():
            raise ValueError(f"the header {name} would hold a line break or another control character")
    body = filled_in(spec.get("body"))
    url = filled(spec["url"], "url", lambda text: quote(text, safe=""))
    return spec.get("method", "GET"), url, headers, body


def _templates_of(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _templates_of(inner)


def _checked_templates(reader: SpecReader, field: str, value: Any) -> Any:
    """`value` if the expressions in it are well formed; which names there are is known only at run time."""
    for text in _templates_of(value):
        for name in _SECRET.findall(text):
            if not name.isidentifier() or not name.isascii():
                reader.errors[field] = _(
                    "%(name)s is no name of a secret: letters, digits and underscores."
                ) % {"name": repr(name)}
                return None
        try:
            parameters.check_text(_SECRET.sub("", text), where=field)
        except parameters.ParameterError as error:
            reader.errors[field] = str(error)
            return None
    return value


def _url(reader: SpecReader) -> str | None:
    value = reader.text("url")
    if value is None or _checked_templates(reader, "url", value) is None:
        return None
    try:
        # The place of an expression is held by a letter: it may be the whole host or a part of the path.
        url = httpx.URL(re.sub(r"\$\{[^{}]*\}", "x", value))
    except httpx.InvalidURL as error:
        reader.errors["url"] = _("It is no URL: %(error)s.") % {"error": error}
        return None
    if url.scheme not in {"http", "https"} or not url.host:
        reader.errors["url"] = _("It must begin with http:// or https:// and name a host.")
        return None
    if url.userinfo:
        reader.errors["url"] = _("It holds a password for everyone to read; use a header with ${secret:NAME}.")
        return None
    return value.strip()


def _method(reader: SpecReader) -> str | None:
    value = reader.text("method")
    if value is not None and value.upper() not in _METHODS:
        reader.errors["method"] = _("It must be one of %(methods)s.") % {"methods": ", ".join(_METHODS)}
        return None
    return value.upper() if value is not None else None


def _headers(reader: SpecReader) -> dict[str, str] | None:
    value = reader.texts("headers")
    for name, text in (value or {}).items():
        if not _HEADER.fullmatch(name) or not text.isprintable():
            reader.errors["headers"] = _(
                "%(name)s is no header: a name of letters and dashes, a text of one line."
            ) % {"name": repr(name)}
            return None
    return _checked_templates(reader, "headers", value) if value is not None else None


def _body(reader: SpecReader) -> Any:
    value = reader.take("body", str, dict, list, article=_("a text, or a map or list to send as JSON"))
    if value is None:
        return None
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        reader.errors["body"] = _("It cannot be written as JSON: %(error)s.") % {"error": error}
        return None
    return _checked_templates(reader, "body", value)


def _expect(reader: SpecReader) -> list[int] | None:
    value = reader.take("expect", int, list, tuple, article=_("a status, or a list of them"))
    if value is None:
        return None
    found = [value] if isinstance(value, int) else list(value)
    if not found or not all(isinstance(status, int) and 100 <= status <= 599 for status in found):
        reader.errors["expect"] = _("A status is a number from 100 to 599.")
        return None
    return sorted(set(found))


def _connect_timeout(reader: SpecReader) -> float | None:
    value = reader.take("connect_timeout", int, float, article=_("a number of seconds"))
    if value is not None and not 0 < value <= 600:
        reader.errors["connect_timeout"] = _("It must be more than 0 and at most 600 seconds.")
        return None
    return value if value is None else float(value)
