"""What a metric is called, and what it means."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    """`<part>` stands for one part of a family, such as a task type."""
    unit: str
    definition: str

    @property
    def family(self) -> str:
        return self.name.partition("/")[0]

    def matches(self, key: str) -> bool:
        return _pattern(self.name).fullmatch(key) is not None


@cache
def _pattern(name: str) -> re.Pattern[str]:
    return re.compile("".join("[^/]+" if part.startswith("<") else re.escape(part) for part in _split(name)))


def _split(name: str) -> list[str]:
    return re.split(r"(<[^>]+>)", name)
