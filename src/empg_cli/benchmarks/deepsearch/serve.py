"""A `/retrieve` server over any retriever, in the Search-R1 dialect and its single-query variant.

    POST /retrieve  {"queries": [...] | "query": "...", "topk": 3, "return_scores": false}
    POST /access    {"urls": [...]}      whole pages by document id (ASearcher's form)
    GET  /health    {"status": "ok", ...}

A plain ASGI application; uvicorn (extra `serve`) runs it.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from empg_cli.benchmarks.base import DataError, UnscoredError
from empg_cli.benchmarks.deepsearch.retrieval.base import Hit, Retriever
from empg_cli.extras import install_command
from empg_cli.services.errors import ServiceError

MAX_BODY_BYTES: Final = 16 * 2**20
MAX_TOP_K: Final = 1000

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class BadRequestError(Exception):
    """The request has not the form of the dialect."""


class RetrieveApp:
    """
    Args:
        top_k: hits per query when a request does not say `topk`.
    """

    def __init__(self, retriever: Retriever, top_k: int = 3) -> None:
        self._retriever, self._top_k = retriever, top_k

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        status, answer = await self._answer(scope["method"], scope["path"], receive)
        body = json.dumps(answer, ensure_ascii=False).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, method: str, path: str, receive: Receive) -> tuple[int, Any]:
        try:
            match method, path.rstrip("/"):
                case "GET", "/health":
                    return 200, {"status": "ok", **self._retriever.fingerprint()}
                case "POST", "/retrieve":
                    return 200, await self._retrieve(await _json_body(receive))
                case "POST", "/access":
                    return 200, await self._access(await _json_body(receive))
                case _:
                    return 404, {"detail": "there are POST /retrieve, POST /access and GET /health"}
        except BadRequestError as error:
            return 422, {"detail": str(error)}
        except (ServiceError, UnscoredError) as error:
            return 503, {"detail": str(error)}

    async def _retrieve(self, body: Mapping[str, Any]) -> dict[str, Any]:
        queries = body.get("queries", [body["query"]] if "query" in body else None)
        if not isinstance(queries, list) or not all(isinstance(query, str) for query in queries):
            raise BadRequestError('"queries" (a list of strings) or "query" (a string) is required')
        top_k = body.get("topk") or self._top_k
        if not isinstance(top_k, int) or not 1 <= top_k <= MAX_TOP_K:
            raise BadRequestError(f'"topk" must be an integer of 1 to {MAX_TOP_K}')
        found = await self._retriever.search(queries, top_k)
        if body.get("return_scores"):
            return {"result": [[{"document": document(hit), "score": hit.score} for hit in hits] for hits in found]}
        return {"result": [[document(hit) for hit in hits] for hits in found]}

    async def _access(self, body: Mapping[str, Any]) -> dict[str, Any]:
        ids = body.get("urls")
        if not isinstance(ids, list) or not all(isinstance(id_, str) for id_ in ids):
            raise BadRequestError('"urls" (a list of strings) is required')
        pages = [await self._retriever.open(id_) for id_ in ids]
        return {
            "result": [document(page) | {"url": id_} if page else None for id_, page in zip(ids, pages, strict=True)]
        }

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            kind = (await receive())["type"].removeprefix("lifespan.")
            if kind == "shutdown":
                await self._retriever.close()
            await send({"type": f"lifespan.{kind}.complete"})
            if kind == "shutdown":
                return


def document(hit: Hit) -> dict[str, str]:
    """wiki-18's row: the quoted title on the first line of `contents`; `url` for clients that open pages."""
    return {"id": hit.id, "contents": f'"{hit.title}"\n{hit.text}', "url": hit.url or hit.id}


def serve(retriever: Retriever, *, host: str, port: int, top_k: int = 3) -> None:
    """Answer until the process is stopped."""
    try:
        import uvicorn
    except ImportError:
        raise DataError(f"serving needs the package uvicorn: {install_command('serve')}") from None
    uvicorn.run(RetrieveApp(retriever, top_k), host=host, port=port, log_level="warning", access_log=False)


async def _json_body(receive: Receive) -> dict[str, Any]:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise BadRequestError(f"the body is larger than {MAX_BODY_BYTES} bytes")
        if not message.get("more_body"):
            break
    try:
        parsed = json.loads(body)
    except ValueError:
        raise BadRequestError("the body is not JSON") from None
    if not isinstance(parsed, dict):
        raise BadRequestError("the body is not a JSON object")
    return parsed
