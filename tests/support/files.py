"""A server of one large file, with ranges and ETags (RFC 9110), whose line can be cut and whose file can change."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from tests.support.server import Reply, Request


@dataclass
class FileServer:
    """A handler for `FakeServer`."""

    content: bytes
    etag: str | None = '"one"'
    cuts: list[int] = field(default_factory=list)
    """Bytes after which the line is cut, for the answers to come."""
    knows_ranges: bool = True

    def __call__(self, request: Request) -> Reply:
        headers = {"Content-Type": "application/octet-stream"}
        if self.etag:
            headers["ETag"] = self.etag
        start = self._start(request)
        if start >= len(self.content) > 0 and start:
            return Reply(b"", 416, {"Content-Range": f"bytes */{len(self.content)}"})
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
        cut = self.cuts.pop(0) if self.cuts else None
        return Reply(self.content[start:], 206 if start else 200, headers, cut_at=cut)

    def _start(self, request: Request) -> int:
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        wanted = request.headers.get("if-range")
        return int(asked[1]) if asked and self.knows_ranges and wanted in (None, self.etag) else 0
