"""A `/retrieve` server over any retriever, in the Search-R1 dialect and its single-query variant.

    POST /retrieve  {"queries": [...] | "query": "...", "topk": 3, "return_scores": false}
    POST /access    {"urls": [...]}      whole pages by document id (ASearcher's form)
    GET  /health    {"status": "ok", ...}

A plain ASGI application; uvicorn (extra `serve`) runs it. Searches run in a thread, some queries of a request at
a time, so that a large request delays a small one by no more than that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from empg_cli.benchmarks.base import DataError, UnscoredError
from empg_cli.benchmarks.deepsearch.retrieval.base import Hit, Retriever, Runner
from empg_cli.errors import UserError
from empg_cli.extras import install_command
from empg_cli.services.asgi import BadRequestError, Receive, Send, encoded, json_body, send_json
from empg_cli.services.errors import ServiceError

MAX_TOP_K: Final = 1000
MAX_QUERIES: Final = 10_000
"""In a request: Search-R1's trainer sends those of a whole batch, 2,560, in one."""
MAX_HITS: Final = 100_000
"""Queries times hits in a request."""
AT_ONCE: Final = 32
"""Queries or pages between which other requests have their turn."""


class RetrieveApp:
    """
    Args:
        top_k: hits per query when a request does not say `topk`.
    """

    def __init__(self, retriever: Retriever, top_k: int = 3) -> None:
        self._retriever, self._top_k = retriever, top_k
        self._in_place = Runner(is_local=True)
        # One thread: engines need not know threads. Its queue holds one part of each request, so requests take turns.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="search")

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "lifespan":
                await self._lifespan(receive, send)
            case "http":
                await send_json(send, *await self._answer(scope["method"], scope["path"], receive))
            case _:  # a WebSocket
                await receive()
                await send({"type": "websocket.close"})

    async def _answer(self, method: str, path: str, receive: Receive) -> tuple[int, bytes]:
        try:
            match method, path.rstrip("/"):
                case "GET", "/health":
                    return 200, encoded({"status": "ok", **self._retriever.fingerprint()})
                case "POST", "/retrieve":
                    return 200, await self._retrieve(await json_body(receive))
                case "POST", "/access":
                    return 200, await self._access(await json_body(receive))
                case _:
                    return 404, encoded({"detail": "there are POST /retrieve, POST /access and GET /health"})
        except BadRequestError as error:
            return error.status, encoded({"detail": str(error)})
        except (ServiceError, UnscoredError, UserError) as error:
            return 503, encoded({"detail": str(error)})

    async def _retrieve(self, body: Mapping[str, Any]) -> bytes:
        queries = body.get("queries", [body["query"]] if "query" in body else None)
        if not isinstance(queries, list) or not all(isinstance(query, str) for query in queries):
            raise BadRequestError('"queries" (a list of strings) or "query" (a string) is required')
        top_k = body.get("topk") or self._top_k
        if not isinstance(top_k, int) or not 1 <= top_k <= MAX_TOP_K:
            raise BadRequestError(f'"topk" must be an integer of 1 to {MAX_TOP_K}')
        _refuse_more_than(MAX_QUERIES, len(queries), '"queries"')
        _refuse_more_than(MAX_HITS, len(queries) * top_k, '"queries" times "topk"')
        has_scores = bool(body.get("return_scores"))

        async def search(some: Sequence[str]) -> list[Any]:
            found = await self._retriever.search(some, top_k)
            if has_scores:
                return [[{"document": document(hit), "score": hit.score} for hit in hits] for hits in found]
            return [[document(hit) for hit in hits] for hits in found]

        return await self._in_turns(queries, search)

    async def _access(self, body: Mapping[str, Any]) -> bytes:
        ids = body.get("urls")
        if not isinstance(ids, list) or not all(isinstance(id_, str) for id_ in ids):
            raise BadRequestError('"urls" (a list of strings) is required')
        _refuse_more_than(MAX_QUERIES, len(ids), '"urls"')

        async def open_them(some: Sequence[str]) -> list[Any]:
            pages = [await self._retriever.open(id_) for id_ in some]
            return [document(page) | {"url": id_} if page else None for id_, page in zip(some, pages, strict=True)]

        return await self._in_turns(ids, open_them)

    async def _in_turns(
        self, asked: Sequence[str], answer: Callable[[Sequence[str]], Coroutine[Any, Any, list[Any]]]
    ) -> bytes:
        """`{"result": [...]}`, an entry for each of what was asked. It is made, and turned into JSON, part by part."""
        parts = []
        for start in range(0, len(asked), AT_ONCE):
            some = answer(asked[start : start + AT_ONCE])
            if self._retriever.is_local:
                loop = asyncio.get_running_loop()
                parts.append(await loop.run_in_executor(self._thread, self._found, some))
            else:
                parts.append(encoded(await some))
        return b'{"result": [%s]}' % b", ".join(part[1:-1] for part in parts)

    def _found(self, some: Coroutine[Any, Any, list[Any]]) -> bytes:
        return encoded(self._in_place.run(some))

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            kind = (await receive())["type"].removeprefix("lifespan.")
            if kind == "shutdown":
                self._thread.shutdown()
                await self._retriever.close()
            await send({"type": f"lifespan.{kind}.complete"})
            if kind == "shutdown":
                return


def document(hit: Hit) -> dict[str, str]:
    """wiki-18's row: the quoted title on the first line of `contents`; `url` for clients that open pages."""
    return {"id": hit.id, "contents": f'"{hit.title}"\n{hit.text}', "url": hit.url or hit.id}


def refuse_without_uvicorn() -> None:
    """Before an index is read.

    Raises:
        DataError: nothing here can serve.
    """
    try:
        import uvicorn  # noqa: F401 (only whether it is there)
    except ImportError:
        raise DataError(f"serving needs the package uvicorn: {install_command('serve')}") from None


def _refuse_more_than(most: int, asked: int, what: str) -> None:
    if asked > most:
        raise BadRequestError(f"{what} may be {most:,} in one request, got {asked:,}; send several", 413)
