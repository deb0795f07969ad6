"""Calls to a remote service: JSON in and out, retried, bounded in number and time."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx

from empg_cli.config.service import Remote
from empg_cli.services.errors import AccessDeniedError, NoAnswerError

RETRIED: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 60.0


class Service:
    """One remote service. Use it from one event loop.

    Every failure is an exception: `AccessDeniedError` for 401 and 403, `NoAnswerError` for the rest.
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
            attempts: tries of one call in all.
            before_attempt: awaited before each try (rate limit, budget).
        """
        self.name = name
        self.retries = 0
        self._attempts, self._before_attempt = attempts, before_attempt
        self._slots = asyncio.Semaphore(concurrency)
        # Waiting for a connection is bounded by the semaphore; httpx's own pool timeout would raise under fan-out.
        self._client = httpx.AsyncClient(
            headers=dict(headers or {}),
            timeout=httpx.Timeout(timeout_s, pool=None),
            limits=httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
        )

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
        """The parsed JSON body of the first successful try. `request`: keyword arguments of `httpx.Client.request`."""
        body = await self.call_text(method, url, **request)
        try:
            return httpx.Response(200, content=body).json()
        except ValueError:
            raise NoAnswerError(f"{self.name} answered with something that is not JSON: {body[:80]!r}") from None

    async def call_text(self, method: str, url: str, **request: Any) -> bytes:
        reason = ""
        for attempt in range(self._attempts):
            async with self._slots:
                if self._before_attempt:
                    await self._before_attempt()
                try:
                    response = await self._client.request(method, url, **request)
                except httpx.TimeoutException as error:
                    reason, told = f"no answer in time ({type(error).__name__})", None
                except httpx.TransportError as error:
                    reason, told = f"{type(error).__name__}: {error}", None
                else:
                    if response.is_success:
                        return response.content
                    reason, told = _status(response), retry_after(response)
                    if response.status_code in (401, 403):
                        raise AccessDeniedError(f"{self.name} refused the request: {reason}; check its API key")
                    if response.status_code not in RETRIED:
                        raise NoAnswerError(f"{self.name}: {reason}")
            if attempt + 1 < self._attempts:
                self.retries += 1
                await asyncio.sleep(_wait(attempt, told))
        raise NoAnswerError(f"{self.name}: {reason}, tried {self._attempts} times")

    async def close(self) -> None:
        await self._client.aclose()


def retry_after(response: httpx.Response) -> float | None:
    """Seconds that the server asks to wait: `Retry-After` as a number or a date (RFC 9110, 10.2.3)."""
    value = response.headers.get("retry-after", "").strip()
    if value.replace(".", "", 1).isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


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


def _status(response: httpx.Response) -> str:
    detail = " ".join(response.text.split())[:120]
    return f"HTTP {response.status_code}{f' ({detail})' if detail else ''}"
