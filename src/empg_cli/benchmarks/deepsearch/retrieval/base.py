"""What a search engine is to the environment."""

from __future__ import annotations

import asyncio
import re
import threading
import unicodedata
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from empg_cli.benchmarks.base import UnscoredError

T = TypeVar("T")

MAX_QUERY_CHARS: Final = 2_000
"""Longer queries are cut, as ASearcher does; the environment counts them."""
_HALF: Final = re.compile("[\ud800-\udfff]")
_WORDS: Final = re.compile(r"\w+")
_DIACRITICS: Final = re.compile(
    "[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f\u00ad\u200c-\u200f\u2060\ufeff]"
)
"""Combining marks of no script of their own, and characters that are not seen."""


@dataclass(frozen=True, slots=True)
class Hit:
    id: str
    """What `open` takes: a passage id, or a URL on the web."""
    title: str
    text: str
    score: float = 0.0
    url: str = ""

    def __post_init__(self) -> None:
        """Half characters, which JSON can hold and no tokenizer reads, become the sign for what cannot be read."""
        for name in ("id", "title", "text", "url"):
            if not (text := getattr(self, name)).isascii() and _HALF.search(text):
                object.__setattr__(self, name, _HALF.sub("\ufffd", text))


class BudgetSpentError(UnscoredError):
    """The budget of paid calls is used up."""


class Retriever(Protocol):
    """A search engine. All methods are safe to call from many tasks at once.

    `NoAnswerError` from `search` or `open`: the agent is told so and the episode goes on; metrics count it.
    """

    name: str
    is_local: bool
    """True promises that the coroutines never wait, so they can run without an event loop."""

    async def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """The best hits of each query, best first; an empty list for a query without words. Raises NoAnswerError."""
        ...

    async def open(self, id_: str) -> Hit | None:
        """The whole page of a hit, None if there is no such document. Raises NoAnswerError."""
        ...

    async def check(self) -> None:
        """Raise DataError with what to do if the engine cannot answer at all. Called once before the first episode."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """Engine and index digest: a changed index changes the task."""
        ...

    async def close(self) -> None: ...


def searchable(text: str) -> str:
    """A text as the embedded engines index and search it: in composed characters (NFC), and without the diacritics that
    have no composed form, where their tokenisers would break the word. (No word ends at a mark: Unicode's UAX#29, rule
    WB4.) The marks that spell, as those of Devanagari, stay."""
    if text.isascii():
        return text
    # Lower case splits the dotted I in two characters; its dot is a diacritic like any other.
    return _DIACRITICS.sub("", unicodedata.normalize("NFC", text).replace("\u0130", "I"))


def words_of(text: str) -> list[str]:
    """Lower-case words; marks belong to the word that they stand in."""
    text = searchable(text).lower()
    if text.isascii():
        return _WORDS.findall(text)
    return "".join(c if c.isalnum() or c == "_" or unicodedata.category(c)[0] == "M" else " " for c in text).split()


def query_words(query: str) -> list[str]:
    """The words of a query; a query language's operators and grammar characters never get through."""
    return words_of(query[:MAX_QUERY_CHARS])


class Runner:
    """Runs a retriever's coroutines from synchronous code.

    Local engines run in place (a thread hop costs more than the search). For the others one event loop lives in a
    daemon thread: environments stepped from several threads share it, so their identical queries meet in flight.
    """

    def __init__(self, *, is_local: bool) -> None:
        self.is_local = is_local
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self.is_local:
            return _run_in_place(coroutine)
        return asyncio.run_coroutine_threadsafe(coroutine, self._running_loop()).result()

    def run_all(self, coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T | BaseException]:
        """All of them at once, on remote engines truly so; a failure stands in the list in its place."""
        if not self.is_local:
            return asyncio.run_coroutine_threadsafe(_gather(coroutines), self._running_loop()).result()
        results: list[T | BaseException] = []
        for coroutine in coroutines:
            try:
                results.append(_run_in_place(coroutine))
            except Exception as error:  # the border: the caller decides, episode by episode
                results.append(error)
        return results

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="deepsearch", daemon=True).start()
            return self._loop


async def _gather(coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T | BaseException]:
    return await asyncio.gather(*coroutines, return_exceptions=True)


def _run_in_place(coroutine: Coroutine[Any, Any, T]) -> T:
    try:
        coroutine.send(None)
    except StopIteration as finished:
        result: T = finished.value
        return result
    coroutine.close()
    raise RuntimeError("a retriever with is_local=True waited for something")
