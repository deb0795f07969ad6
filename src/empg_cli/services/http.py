"""Calls to a remote service: JSON in and out, retried, bounded in number, time and bytes."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar

import httpx

from empg_cli.config.service import Remote
from empg_cli.services.errors import AccessDeniedError, BadAnswerError, NoAnswerError
from empg_cli.services.parsing import read_answer
from empg_cli.services.proxies import proxy_for, trusted_certificates
from empg_cli.services.receiving import Answer, receive

T = TypeVar("T")

RETRIED: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 60.0
_SECONDS: Final = re.compile(r"[0-9]{1,300}(\.[0-9]{1,9})?")


class Service:
    """One remote service. Use it from one event loop.

    Every failure is an exception: `AccessDeniedError` for 401 and 403, `NoAnswerError` for the rest, whatever comes.
    """

    def __init__(
        self,
        name: str,
        *,
        timeout_s: float,
        attempts: int,
        concurrency: int,
        headers: Mapping[str, str] | None = None,
        before_attempt: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """
        Args:
            name: how messages call the service.
            timeout_s: of one attempt, from the connection to the last byte.
            attempts: tries of one call in all.
            before_attempt: awaited before each try (rate limit, budget).
        """
        self.name = name
        self.retries = 0
        self._timeout_s, self._attempts, self._before_attempt = timeout_s, attempts, before_attempt
        self._slots = asyncio.Semaphore(concurrency)
        self._concurrency = concurrency
        self._headers = {**(headers or {}), "Accept-Encoding": "gzip"}
        self._clients: dict[str | None, httpx.AsyncClient] = {}
        """By the proxy that they go through."""

    @classmethod
    def of(
        cls,
        name: str,
        settings: Remote,
        headers: Mapping[str, str] | None = None,
        before_attempt: Callable[[], Awaitable[None]] | None = None,
    ) -> Service:
        """A service with the limits of its config node."""
        return cls(
            name,
            timeout_s=settings.timeout_s,
            attempts=settings.attempts,
            concurrency=settings.concurrency,
            headers=headers,
            before_attempt=before_attempt,
        )

    async def call(self, method: str, url: str, **request: Any) -> Any:
        """The JSON in the first successful try. `request`: keyword arguments of `httpx.AsyncClient.stream`."""
        return await self.ask(method, url, lambda answer: answer, **request)

    async def ask(self, method: str, url: str, read: Callable[[Any], T], **request: Any) -> T:
        """What `read` makes of that JSON; it may raise what one raises on data of another form."""
        body = await self.call_text(method, url, **request)
        with self._named():
            return read_answer(body, read)

    async def call_text(self, method: str, url: str, **request: Any) -> bytes:
        reason = ""
        for attempt in range(self._attempts):
            async with self._slots:
                if self._before_attempt:
                    await self._before_attempt()
                told = None
                try:
                    with self._named():
                        answer = await receive(
                            self._client(url), method, url, timeout_s=self._timeout_s, request=request
                        )
                except TimeoutError:
                    reason = f"no answer in time ({self._timeout_s:g} s)"
                except (httpx.TransportError, OSError) as error:
                    reason = printable(f"{type(error).__name__}: {error}")
                except (httpx.InvalidURL, UnicodeError) as error:
                    raise BadAnswerError(f"{self.name}: this cannot be sent ({printable(str(error))})") from None
                else:
                    if answer.is_success:
                        return answer.body
                    reason, told = _status(answer), retry_after(answer.headers)
                    if answer.status in (401, 403):
                        raise AccessDeniedError(f"{self.name} refused the request: {reason}; check its API key")
                    if answer.status not in RETRIED:
                        raise BadAnswerError(f"{self.name}: {reason}", answer.body.decode(errors="replace"))
            if attempt + 1 < self._attempts:
                self.retries += 1
                await asyncio.sleep(_wait(attempt, told))
        tried = f"tried {self._attempts} times" if self._attempts > 1 else "tried once"
        raise NoAnswerError(f"{self.name}: {reason}, {tried}")

    async def close(self) -> None:
        for client in self._clients.values():
            await client.aclose()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """What is wrong with an answer is said with the name of who gave it."""
        try:
            yield
        except BadAnswerError as error:
            raise BadAnswerError(f"{self.name}: {error}", error.said) from None

    def _client(self, url: str) -> httpx.AsyncClient:
        """For an address, with the proxy that is on its way. Only we look into the environment: httpx would open every
        proxy that stands there, also for this machine."""
        proxy = proxy_for(url)
        if proxy not in self._clients:
            self._clients[proxy] = httpx.AsyncClient(
                headers=self._headers,
                # The attempt as a whole is bounded, and waiting for a connection by the semaphore: httpx's own pool
                # timeout would raise under fan-out.
                timeout=None,
                limits=httpx.Limits(max_connections=self._concurrency, max_keepalive_connections=self._concurrency),
                proxy=proxy,
                verify=trusted_certificates(),
                trust_env=False,
            )
        return self._clients[proxy]


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait: `Retry-After` as a number or a date (RFC 9110, 10.2.3); None where it says
    neither."""
    value = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(value):
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


class RateLimit:
    """At most `per_second` starts a second, evenly spaced; None = no limit."""

    def __init__(self, per_second: float | None) -> None:
        self._gap = 1 / per_second if per_second else 0.0
        self._next = 0.0

    async def wait(self) -> None:
        now = time.monotonic()
        start = max(now, self._next)
        self._next = start + self._gap
        if start > now:
            await asyncio.sleep(start - now)


def _wait(attempt: int, told: float | None) -> float:
    """What the server says, else 0.5 s, 1 s, 2 s ... with up to half of it at random, so that workers spread out."""
    wait = told if told is not None else FIRST_WAIT_S * 2**attempt * random.uniform(1.0, 1.5)
    return min(wait, LONGEST_WAIT_S)


def _status(answer: Answer) -> str:
    detail = printable(" ".join(answer.body.decode(errors="replace").split())[:120])
    if 300 <= answer.status < 400:
        detail = "it sends on to another address, which is not followed: name that one"
    return f"HTTP {answer.status}{f' ({detail})' if detail else ''}"


def printable(text: str) -> str:
    """Text of a server for a terminal, which would obey some characters."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
