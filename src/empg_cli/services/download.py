"""A large file over HTTP: to the disk piece by piece, gone on with after a cut, and under its name only when whole."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urljoin, urlsplit

import httpx

from empg_cli.disk import free_bytes
from empg_cli.services.errors import BadAnswerError, NoAnswerError
from empg_cli.services.http import FIRST_WAIT_S, LONGEST_WAIT_S, RETRIED, printable, retry_after
from empg_cli.services.part import Part
from empg_cli.services.proxies import proxy_for, trusted_certificates

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and those of the whole file, None where the server does not say."""

ATTEMPTS: Final = 4
"""In a row that bring no further byte; an hour of a poor line is no failure."""
TIMEOUT_S: Final = 60.0
"""Without a connection, or without a byte."""
MOST_HOPS: Final = 5
_FROM: Final = re.compile(r"bytes (\d+)-\d+/(\d+)")


class _Again(Exception):  # noqa: N818 (nothing is wrong: the same is asked once more)
    """Asking again may bring what this answer has not."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


def download(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    progress: Progress = lambda done, total: None,
    attempts: int = ATTEMPTS,
    timeout_s: float = TIMEOUT_S,
) -> str:
    """Fetch a file that is not there yet; a signal, a cut line or a full disk leaves `target`.part, which the next call
    goes on with if the server still has the same file, which its ETag, its date or the checksum tells.

    Args:
        target: in a folder that exists.
        size, sha256: what must come; None = not known.

    Returns:
        The SHA-256 of what came.

    Raises:
        NoAnswerError: nobody answers, or the line is cut `attempts` times in a row; the part stays.
        BadAnswerError: it was refused, or is another file; no part stays of another file.
        NoWayError: the environment names a proxy, or certificates, that cannot be used.
        OSError: the disk refuses; the part stays. FileExistsError: `target` is there.
    """
    with Part.of(target, url, is_checked=sha256 is not None) as part:
        failures, most, version = 0, part.size, part.validator
        while not part.is_whole:
            try:
                _receive(url, part, size, progress, timeout_s)
            except (_Again, httpx.TransportError) as error:
                if part.validator not in (None, version):  # another file, of which nothing had come
                    most, version = 0, part.validator
                failures = 1 if part.size > most else failures + 1  # what had come before is no progress
                most = max(most, part.size)
                reason = printable(str(error)) or type(error).__name__
                if failures >= attempts:
                    raise NoAnswerError(f"{_host(url)}: {reason}, tried {attempts} times") from None
                told = error.wait_s if isinstance(error, _Again) else None
                time.sleep(min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**failures if told is None else told))
        if size not in (None, part.size):
            came = part.size
            part.drop()
            raise BadAnswerError(f"{_host(url)}: what came is another file: {came:,} bytes, not {size:,}")
        digest = part.sha256()
        if sha256 not in (None, digest):
            part.drop()
            raise BadAnswerError(f"{_host(url)}: what came is another file: sha256 {digest}, not {sha256}")
        part.become(target)
    return digest


def _receive(url: str, part: Part, size: int | None, progress: Progress, timeout_s: float) -> None:
    """What a single answer brings: the rest of the part, or the file from its beginning."""
    headers = {"Accept-Encoding": "identity"}
    if part.can_go_on:
        headers["Range"] = f"bytes={part.size}-"
        if part.validator:
            headers["If-Range"] = part.validator
    with _answer(url, headers, timeout_s) as answer:
        if answer.status_code in RETRIED:
            raise _Again(f"HTTP {answer.status_code}", retry_after(answer.headers))
        if answer.status_code == 416 or (answer.status_code == 206 and not _is_the_rest(answer, part)):
            part.restart()
            raise _Again("the server has another file than before", 0.0)
        if answer.status_code not in (200, 206):
            raise BadAnswerError(f"{_host(url)}: HTTP {answer.status_code} for {url}")
        if answer.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
            raise BadAnswerError(f"{_host(url)}: the file comes packed, which was not asked for")
        if answer.status_code == 200:
            total = _length(answer)
            if size is not None and total not in (None, size):
                part.drop()
                raise BadAnswerError(f"{_host(url)}: another file: {total:,} bytes, not {size:,}")
            part.begin(_validator(answer), total)
        _refuse_without_room(part)
        progress(part.size, part.total)
        for piece in answer.iter_raw():
            part.write(piece)
            progress(part.size, part.total)
    part.ended()


@contextlib.contextmanager
def _answer(url: str, headers: dict[str, str], timeout_s: float) -> Iterator[httpx.Response]:
    """Redirections are followed one by one: each address has a way of its own, through a proxy or straight."""
    place = _web_address(url)
    for _ in range(MOST_HOPS):
        with (
            httpx.Client(
                proxy=proxy_for(place), verify=trusted_certificates(), trust_env=False, timeout=timeout_s
            ) as client,
            contextlib.closing(_ask(client, place, headers)) as answer,
        ):
            if not answer.has_redirect_location:
                yield answer
                return
            onwards = _web_address(answer.headers["location"], place)
        if urlsplit(place).scheme == "https" and urlsplit(onwards).scheme != "https":
            raise BadAnswerError(f"{_host(url)}: it sends on to an address without encryption, which is not followed")
        place = onwards
    raise BadAnswerError(f"{_host(url)}: it sends on more than {MOST_HOPS} times")


def _web_address(text: str, base: str = "") -> str:
    """An address, maybe relative to another. Raises BadAnswerError: no web server can be there."""
    try:
        address = urljoin(base, text)
        parts = urlsplit(address)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one:
        sender = f"{_host(base)} sends on to " if base else ""
        raise BadAnswerError(f"{sender}{printable(text)}: this is no address such as https://host/folder")
    return address


def _ask(client: httpx.Client, place: str, headers: dict[str, str]) -> httpx.Response:
    """The answer, its body not read yet. Raises BadAnswerError: what is asked cannot be sent, such as a host's name of
    70 letters without a dot."""
    try:
        return client.send(client.build_request("GET", place, headers=headers), stream=True)
    except (ValueError, httpx.InvalidURL) as error:
        raise BadAnswerError(f"{printable(place)} cannot be asked: {printable(str(error))}") from None


def _is_the_rest(answer: httpx.Response, part: Part) -> bool:
    told = _FROM.fullmatch(answer.headers.get("content-range", "").strip())
    is_same = _validator(answer) in (None, part.validator)
    return told is not None and is_same and int(told[1]) == part.size and part.total in (None, int(told[2]))


def _validator(answer: httpx.Response) -> str | None:
    """What tells one version of a file from another: a strong ETag, else the time of its last change (RFC 9110,
    13.1.5)."""
    etag: str = answer.headers.get("etag", "").strip()
    changed: str | None = answer.headers.get("last-modified")
    return etag if etag and not etag.startswith("W/") else changed


def _length(answer: httpx.Response) -> int | None:
    text = answer.headers.get("content-length", "")
    return int(text) if text.isdecimal() else None


def _refuse_without_room(part: Part) -> None:
    """Before an hour of work, not after."""
    if part.total is not None and part.total - part.size > free_bytes(part.path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(part.path))


def _host(url: str) -> str:
    return urlsplit(url).netloc
