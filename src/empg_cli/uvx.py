"""Where `uvx` runs empg: in an environment of uv's cache, which nobody installs into and whose programs have no name to
type but `uvx --from ... empg`."""

from __future__ import annotations

import json
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

PACKAGE = "empg-cli"


def uvx_program(extra: str | None = None) -> list[str] | None:
    """The words that start empg, with an extra if wanted; None where it was not started by uvx."""
    if not any(part.startswith("archive-v") for part in Path(sys.prefix).parts):
        return None
    name = f"{PACKAGE}[{extra}]" if extra else PACKAGE
    return ["uvx", "--from", f"{name} @ {url}" if (url := _direct_url()) else name, "empg"]


def _direct_url() -> str | None:
    """Where the package came from, if not from an index (PEP 610)."""
    try:
        text = distribution(PACKAGE).read_text("direct_url.json")
        return str(json.loads(text)["url"]) if text else None
    except (PackageNotFoundError, ValueError, KeyError, TypeError):
        return None
