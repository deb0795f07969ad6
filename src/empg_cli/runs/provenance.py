"""What a run was made of beside its settings: code, packages, data, weights. The runs of one table must agree on it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import empg_cli

CODE, CODE_BEFORE = "code", "code_before"
"""Keys of run.json: the digest of the code, and those of the code that made the run before it went on."""
DEMONSTRATIONS = "demonstrations"
"""Key of run.json: the digest of the file that a warm start imitates, where there is one."""
WEIGHTS = "weights"
"""Key of run.json: the digest of the weights before a warm start, where there was one."""
NOT_IN_A_RUN = ("cli", "reports", "studies")
"""Packages above the loop or beside it (docs/architecture.md): no run passes through them."""
COMPUTING = ("torch", "transformers", "tokenizers", "numpy")
GROWING = "recorded_answers"
"""A fact about data that changes while it is used."""


class Part(NamedTuple):
    """What some runs must have in common."""

    name: str
    among: str
    """Which runs: those for which this is equal."""


class Made(NamedTuple):
    identity: str
    told: str
    """For people."""


@cache  # what is edited while this process runs is not what it runs
def code_digest() -> str:
    """Of the Python files of this package that a run passes through, wherever the package lies.

    A commit would differ when only a document has changed, and stay the same while code is edited.
    """
    package = Path(empg_cli.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package)
        if name.parts[0] not in NOT_IN_A_RUN:
            digest.update(name.as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def parts(facts: Mapping[str, Any], settings: Mapping[str, Any] | None, *, name: str, seed: int) -> dict[Part, Made]:
    """What a run was made of; parts that nobody has recorded are missing.

    Data and weights are those that the settings mean, so runs must agree on them where these settings are equal.

    Args:
        facts: run.json.
        settings: of the run; None = not known, so that it is compared with runs of the same `name` alone.
    """
    found: dict[Part, Made] = {}
    if code := _code(facts):
        found[Part("code", "")] = code
    versions = facts.get("versions", {})
    if packages := ", ".join(f"{package} {versions[package]}" for package in COMPUTING if package in versions):
        found[Part("packages", "")] = Made(packages, packages)
    for key, outside in facts.get("outside", {}).items():
        if not key.startswith("logger."):
            found[Part("code from outside", outside["target"])] = Made(outside["digest"], f"digest {outside['digest']}")
    benchmark = _text(settings["benchmark"]) if settings else name
    if data := facts.get("data"):
        found[Part("data", benchmark)] = _data([*facts.get("data_before", []), data])
    if demonstrations := facts.get(DEMONSTRATIONS):
        named = _text(settings["trainer"]["warm_start"]) if settings else name
        found[Part("demonstrations", named)] = Made(demonstrations, f"digest {demonstrations}")
    drawn = f"seed {seed}" if settings and settings["model"]["init"] == "scratch" else ""
    if weights := _weights(facts, settings):
        model = _text(settings["model"]) if settings else name
        found[Part("weights", f"{model} {benchmark} {drawn}")] = Made(weights, f"digest {weights}")
    return found


def code_before(resumed: Mapping[str, Any]) -> dict[str, list[str]]:
    """For run.json of a run that goes on: the code that has made it up to here, where some of it is not that at hand.

    Args:
        resumed: run.json of the run that it goes on from.
    """
    made = resumed.get(CODE) or resumed.get("commit") or "unknown"
    earlier = list(dict.fromkeys([*resumed.get(CODE_BEFORE, []), made]))
    return {CODE_BEFORE: earlier} if earlier != [code_digest()] else {}


def _code(facts: Mapping[str, Any]) -> Made | None:
    """Runs that an older empg made have no digest: they are known by their commit, else by the version."""
    commit = facts.get("commit")
    version = facts.get("versions", {}).get("empg-cli")
    digest = facts.get(CODE) or commit or version
    if digest is None:
        return None
    all_of_it = ", then ".join(dict.fromkeys([*facts.get(CODE_BEFORE, []), digest]))
    place = f"commit {commit}" if commit else f"version {version}"
    return Made(all_of_it, f"{all_of_it} ({place})" if all_of_it not in (commit, version) else place)


def _data(seen: list[Mapping[str, Any]]) -> Made:
    identity = [_without(data, GROWING) for data in seen]
    told = ", then ".join(f"{data.get('source', '?')} {data.get('digest', 'without a digest')}" for data in seen)
    short = hashlib.sha256(_text(identity).encode()).hexdigest()[:8]
    return Made(short, f"{told} (all facts: {short})")


def _weights(facts: Mapping[str, Any], settings: Mapping[str, Any] | None) -> str | None:
    """Before a warm start: what comes after it depends on seed and settings, and on the machine by its rounding."""
    if WEIGHTS in facts:
        return str(facts[WEIGHTS])
    imitated = settings["trainer"]["warm_start"] if settings else {}
    had_warm_start = settings is None or imitated["steps"] > 0 or imitated.get("file") is not None
    return None if had_warm_start else facts.get("model", {}).get("digest")


def _without(values: Any, name: str) -> Any:
    match values:
        case Mapping():
            return {key: _without(value, name) for key, value in values.items() if key != name}
        case list() | tuple():
            return [_without(value, name) for value in values]
        case _:
            return values


def _text(values: Any) -> str:
    return json.dumps(values, sort_keys=True)
