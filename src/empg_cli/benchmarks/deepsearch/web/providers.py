"""What differs between web search engines: the request, and where the hits stand in the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from empg_cli.benchmarks.deepsearch.retrieval.base import Hit


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str | int] = field(default_factory=dict)
    json: Mapping[str, Any] | None = None


class Provider(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def base_url(self) -> str: ...

    @property
    def max_results(self) -> int: ...

    @property
    def takes_addresses(self) -> bool:
        """What is asked for is a page, by its URL, and no query in words."""
        ...

    def request(self, query: str, count: int) -> Request: ...

    def parse(self, body: Any) -> list[Hit]:
        """Hits in order. Raises what one raises on data of another form (`services.parsing.read_answer`)."""
        ...


def hit(url: Any, title: Any, text: Any, score: Any = None) -> Hit:
    """On the web the URL is what `open` takes. TypeError or ValueError where something is not what it must be."""
    if not isinstance(url, str):
        raise TypeError("the address of a hit is no text")
    return Hit(url, str(title or ""), str(text or ""), float(score or 0.0), url)


@dataclass(frozen=True, slots=True)
class Serper:
    """Google results; https://serper.dev."""

    ADDRESS: ClassVar = "https://google.serper.dev"

    key: str | None
    base_url: str
    name: str = "serper"
    max_results: int = 100
    takes_addresses: bool = False

    def request(self, query: str, count: int) -> Request:
        headers = {"X-API-KEY": self.key or ""}
        return Request("POST", f"{self.base_url}/search", headers, json={"q": query, "num": count})

    def parse(self, body: Any) -> list[Hit]:
        return [hit(row["link"], row.get("title"), row.get("snippet")) for row in body.get("organic", [])]


@dataclass(frozen=True, slots=True)
class Tavily:
    """https://docs.tavily.com/api-reference/endpoint/search"""

    ADDRESS: ClassVar = "https://api.tavily.com"

    key: str | None
    base_url: str
    name: str = "tavily"
    max_results: int = 20
    takes_addresses: bool = False

    def request(self, query: str, count: int) -> Request:
        headers = {"Authorization": f"Bearer {self.key or ''}"}
        body = {"query": query[:400], "max_results": count, "search_depth": "basic", "include_raw_content": False}
        return Request("POST", f"{self.base_url}/search", headers, json=body)

    def parse(self, body: Any) -> list[Hit]:
        return [hit(row["url"], row.get("title"), row.get("content"), row.get("score")) for row in body["results"]]


@dataclass(frozen=True, slots=True)
class Brave:
    """https://api-dashboard.search.brave.com"""

    ADDRESS: ClassVar = "https://api.search.brave.com"

    key: str | None
    base_url: str
    name: str = "brave"
    max_results: int = 20
    takes_addresses: bool = False

    def request(self, query: str, count: int) -> Request:
        headers = {"X-Subscription-Token": self.key or "", "Accept": "application/json"}
        return Request("GET", f"{self.base_url}/res/v1/web/search", headers, {"q": query[:400], "count": count})

    def parse(self, body: Any) -> list[Hit]:
        """`web` is absent when nothing was found."""
        return [
            hit(row["url"], row.get("title"), row.get("description"))
            for row in (body.get("web") or {}).get("results", [])
        ]


@dataclass(frozen=True, slots=True)
class SearxNG:
    """Self-hosted meta search. Answers 403 unless `json` is among `search.formats` of its settings.yml; has no count
    parameter."""

    base_url: str
    name: str = "searxng"
    max_results: int = 100
    takes_addresses: bool = False

    def request(self, query: str, count: int) -> Request:
        return Request("GET", f"{self.base_url}/search", params={"q": query, "format": "json"})

    def parse(self, body: Any) -> list[Hit]:
        return [hit(row["url"], row.get("title"), row.get("content"), row.get("score")) for row in body["results"]]


@dataclass(frozen=True, slots=True)
class JinaReader:
    """Page text as markdown; https://r.jina.ai/<url>. Takes the place of a query with a URL."""

    ADDRESS: ClassVar = "https://r.jina.ai"

    key: str | None
    base_url: str
    name: str = "jina"
    max_results: int = 1
    takes_addresses: bool = True

    def request(self, query: str, count: int) -> Request:
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        return Request("GET", f"{self.base_url}/{query}", headers)

    def parse(self, body: Any) -> list[Hit]:
        data = body["data"]
        return [hit(data["url"], data.get("title"), data["content"])]
