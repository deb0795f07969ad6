"""What code from outside the package reads: its settings, checked by the pydantic model that it brings.

A benchmark's factory takes one argument, an object of its own subclass of `BenchmarkSettings`. Of credits and sinks the
keyword-only parameters are the settings. A model in the attribute `settings` goes before both.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ValidationError, create_model

from empg_cli.config import explain
from empg_cli.config.explain import MISSING
from empg_cli.config.node import BenchmarkNode, Node
from empg_cli.config.problems import INVALID, ConfigError, Problem
from empg_cli.config.targets import BENCHMARKS, PAGE, SINKS, code_facts, is_address, load, refused

RESERVED = ("target", "kind")
"""Keys of a configuration that say which code reads it."""


OUR_SINKS = ("jsonl", "csv", "summary", "histograms", "wandb", "tensorboard", "mlflow", "trackio", "swanlab")
"""Names under which warnings and the end of a run speak of a sink."""


def refuse_name_of_ours(place: str, target: str, name: object) -> None:
    """A sink from outside that takes the name of one of ours."""
    if name in OUR_SINKS:
        raise refused(place, f"its sink is named {name}, as one of ours", target, f"choose another name; see {PAGE}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a configuration names code from outside."""

    key: str
    node: dict[str, Any]
    """`target` and the settings."""
    group: str | None
    """Entry points that a bare name may mean."""

    @property
    def target(self) -> str:
        return str(self.node["target"])

    @property
    def where(self) -> str:
        """The key that holds the target; sinks stand in a list."""
        return self.key if self.group == SINKS else f"{self.key}.target"

    @property
    def settings(self) -> dict[str, Any]:
        hidden = RESERVED if self.key == "algo.credit" else ("target",)
        return {str(key): value for key, value in self.node.items() if key not in hidden}


def places(values: Mapping[str, Any]) -> Iterator[Place]:
    """All places of a configuration, as plain data, that name code from outside."""
    benchmark, credit = _node(values, "benchmark"), _node(values, "algo", "credit")
    if isinstance(benchmark.get("target"), str):
        yield Place("benchmark", benchmark, BENCHMARKS)
    if credit.get("kind") == "custom" and isinstance(credit.get("target"), str):
        yield Place("algo.credit", credit, None)
    sinks = _node(values, "logger").get("sinks")
    for number, sink in enumerate(sinks if isinstance(sinks, list) else []):
        node = {"target": sink} if isinstance(sink, str) else sink
        if isinstance(node, dict) and isinstance(node.get("target"), str):
            yield Place(f"logger.sinks[{number}]", node, SINKS)


def check(values: dict[str, Any]) -> tuple[list[Problem], list[str]]:
    """Import what a composed configuration names, check its settings, and put them back with the defaults filled in.

    Returns:
        What is wrong, and the nodes whose defaults could not be filled in.
    """
    problems, unfilled = _missing_targets(values)
    for place in places(values):
        try:
            _, model = _brought(place)
            place.node.update(_checked(place, model).model_dump(mode="json"))
        except ConfigError as error:
            problems += error.problems
            unfilled.append(place.key)
            continue
        if place.group == SINKS:
            values["logger"]["sinks"][int(place.key[len("logger.sinks[") : -1])] = place.node
    return problems, unfilled


def _missing_targets(values: dict[str, Any]) -> tuple[list[Problem], list[str]]:
    hint = f"give package.module:name ({PAGE})"
    benchmark, credit = _node(values, "benchmark"), _node(values, "algo", "credit")
    nodes = {"benchmark": (benchmark, "target" in benchmark), "algo.credit": (credit, credit.get("kind") == "custom")}
    problems = [
        Problem(f"{key}.target", "must name what is to be called", hint=hint)
        for key, (node, is_wanted) in nodes.items()
        if is_wanted and not isinstance(node.get("target"), str)
    ]
    unfilled = [problem.key.removesuffix(".target") for problem in problems]
    sinks = _node(values, "logger").get("sinks")
    for number, sink in enumerate(sinks if isinstance(sinks, list) else []):
        if not isinstance(sink, str) and not (isinstance(sink, dict) and isinstance(sink.get("target"), str)):
            unfilled.append(f"logger.sinks[{number}]")
            problems.append(Problem(unfilled[-1], "must be a target, or {target: ..., key: value}", str(sink)))
    if "algo" in values and "target" in benchmark and _node(values, "model").get("init") == "packaged":
        hint = "choose model=tiny-scratch with trainer.warm_start.steps=N, or a chat model: model=local model.path=DIR"
        problems.append(Problem("model.init", "no agent ships for a benchmark from outside", "packaged", hint))
    return problems, unfilled


def benchmark_of(settings: Mapping[str, Any]) -> Any:
    """Call the factory in `target` with the other settings, checked."""
    place = Place("benchmark", dict(settings), BENCHMARKS)
    factory, model = _brought(place)
    return factory(_checked(place, model))


def function_of(key: str, target: str, settings: Mapping[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """A credit (`algo.credit`) or a sink, and the checked keywords to call it with."""
    place = Place(key, {**settings, "target": target}, None if key == "algo.credit" else SINKS)
    function, model = _brought(place)
    checked = _checked(place, model)
    return function, {name: getattr(checked, name) for name in type(checked).model_fields}


def facts(values: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Key -> target and a digest of its code, for run.json."""
    return {place.key: code_facts(place.target, place.group, place.where) for place in places(values)}


def addresses(values: Mapping[str, Any]) -> dict[str, Any]:
    """Setting -> value that names code by its address; names of entry points are left out: somebody installed those."""
    found = [place for place in places(values) if is_address(place.target)]
    named: dict[str, Any] = {place.where: place.target for place in found if place.group != SINKS}
    if any(place.group == SINKS for place in found):
        named["logger.sinks"] = values["logger"]["sinks"]
    return named


def repeated(named: Mapping[str, Any]) -> list[str]:
    """`addresses` as words of a command line, not yet quoted for the shell."""
    return [f"{key}={value if isinstance(value, str) else _flow(value)}" for key, value in named.items()]


def _flow(value: Any) -> str:
    """A list or mapping in Hydra's grammar."""
    match value:
        case dict():
            return "{" + ",".join(f"{key}:{_flow(inner)}" for key, inner in value.items()) + "}"
        case list():
            return "[" + ",".join(map(_flow, value)) + "]"
        case str():
            escaped = value.replace("\\", "\\\\").replace('"', '\\"')
            return f'"{escaped}"'
        case _:
            return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _brought(place: Place) -> tuple[Callable[..., Any], type[BaseModel]]:
    """What a place names, and the model of its settings. Imports it."""
    called = load(place.target, place.group, place.where)
    try:
        parameters = list(inspect.signature(called, eval_str=True).parameters.values())
    except (TypeError, ValueError, NameError) as error:
        raise refused(place.where, f"its parameters cannot be read: {error}", place.target) from error
    own = getattr(called, "settings", None)
    if own is not None and not (isinstance(own, type) and issubclass(own, BaseModel)):
        raise refused(place.where, "its attribute `settings` is no pydantic model", place.target)
    keywords = [parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    if place.key == "benchmark":
        _try_call(place, called, ["settings"], [])
        return called, own or _annotated(place, parameters[0])
    positional = ["advantage_S", "entropy_S", "next_S"] if place.key == "algo.credit" else ["run"]
    _try_call(place, called, positional, keywords)
    if place.group == SINKS:
        refuse_name_of_ours(place.where, place.target, getattr(called, "name", None))
    return called, own or _made_of(place, keywords)


def _try_call(
    place: Place, called: Callable[..., Any], positional: list[str], keywords: list[inspect.Parameter]
) -> None:
    """Whether it takes what it will be called with."""
    try:
        inspect.signature(called).bind(*positional, **{parameter.name: None for parameter in keywords})
    except TypeError as error:
        form = ", ".join([*positional, *(["*", "its settings"] if place.key != "benchmark" else [])])
        raise refused(place.where, f"cannot be called as ({form}): {error}", place.target, f"see {PAGE}") from None


def _annotated(place: Place, parameter: inspect.Parameter) -> type[BaseModel]:
    kind = parameter.annotation
    if isinstance(kind, type) and issubclass(kind, BenchmarkNode):
        return kind
    what = "brings no settings: the type of its parameter must be a subclass of BenchmarkSettings"
    raise refused(place.where, what, place.target, f"see {PAGE}")


def _made_of(place: Place, keywords: list[inspect.Parameter]) -> type[BaseModel]:
    """The model whose fields are these parameters."""
    fields: dict[str, Any] = {}
    for parameter in keywords:
        if parameter.annotation is parameter.empty or parameter.name in RESERVED:
            what = "cannot be a setting" if parameter.name in RESERVED else "has no type"
            raise refused(place.where, f"its parameter {parameter.name} {what}", place.target)
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (parameter.annotation, default)
    model: type[BaseModel] = create_model("Settings", __base__=Node, **fields)
    return model


def _checked(place: Place, model: type[BaseModel]) -> BaseModel:
    """The settings by their model; its problems name the keys as the user knows them."""
    whole: type[BaseModel] = create_model("Outside", **{place.key: (model, ...)})  # type: ignore[call-overload]
    values = {place.key: place.settings}
    try:
        found = getattr(whole.model_validate(values), place.key)
    except ValidationError as error:
        problems = explain.from_pydantic(error, whole, values)
        if place.group == SINKS:  # an entry of a list is written as a whole
            problems = [replace(p, hint="give it beside the target") if p.what == MISSING else p for p in problems]
        raise ConfigError(INVALID, problems) from None
    assert isinstance(found, BaseModel)
    return found


def _node(values: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    node: Any = values
    for key in keys:
        node = node.get(key) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else {}
