"""Low-rank adapters (LoRA, arXiv 2106.09685): small trained matrices beside frozen ones, in peft's layers and files.

An adapter is put into a Hugging Face model in place. The model keeps its class and the names of its layers, so whatever
calls these (`model.decoder`, the rollout's attention) finds linear layers that do a little more. peft is imported here
alone, when an adapter is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import Parameter

from empg_cli.config.schema import Lora
from empg_cli.errors import DataError, UserError
from empg_cli.extras import install_command
from empg_cli.model.digest import tensors_digest
from empg_cli.planning.job import is_meant
from empg_cli.reading.guard import reading
from empg_cli.reading.streams import read_json

NAME = "default"
"""What peft calls the one adapter of a model; its files leave that out."""
PREFIX = "base_model.model."
"""What peft puts before the names of layers in its files."""
WEIGHTS, CONFIG, BASE = "adapter_model.safetensors", "adapter_config.json", "base.json"
PROBE = 0.1
"""What an adapter that is filled to be seen adds to a layer's output, in units of its input, whatever its shape: more
would make a deep model so sensitive that rounding looks like a fault."""


@dataclass(frozen=True, slots=True)
class Base:
    """The frozen weights below an adapter. They are never saved with it."""

    path: str
    """Folder or hub id that they were read from."""
    dtype: str
    """What they are kept in."""
    digest: str
    """Of all of them (`model.digest`)."""


def is_adapter(folder: Path) -> bool:
    """Whether a policy was saved there as an adapter, without the weights below."""
    return (folder / CONFIG).is_file()


def peft() -> Any:
    """The package behind model.lora.

    Raises:
        UserError: it is not installed.
    """
    try:
        import peft
    except ImportError:
        raise UserError(f"model.lora.rank needs the package peft: {install_command('lora')}") from None
    return peft


def attach(network: Any, lora: Lora, *, seed: int, dtype: torch.dtype) -> None:
    """Freeze a model and put a new adapter into it, one that adds nothing yet: A is drawn, B is 0.

    Args:
        dtype: of the adapter's matrices.

    Raises:
        UserError: peft is not installed, or the targets are not linear layers inside this model.
    """
    package = peft()
    config = package.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=list(lora.targets) if lora.targets else "all-linear",
        task_type="CAUSAL_LM",
    )
    outside = (network.get_input_embeddings(), network.get_output_embeddings())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            package.inject_adapter_in_model(config, network, adapter_name=NAME)
        except ValueError as error:
            reason = str(error).partition("\n")[0]
            raise UserError(f"model.lora.targets={list(lora.targets or ())} cannot be used: {reason}") from error
    adapted = [name for name, _ in _layers(network)]
    if nowhere := [target for target in lora.targets or () if not any(is_meant(name, target) for name in adapted)]:
        raise UserError(f"model.lora.targets: no layer of this model is called {', '.join(nowhere)}")
    for name, layer in _layers(network):
        if layer.get_base_layer() in outside:
            raise UserError(
                f"model.lora.targets: {name} lies outside of the layers, where no adapter is computed; name linear "
                "layers of attention and MLP, or leave it null"
            )
    for _, parameter in _matrices(network):
        parameter.data = parameter.data.to(dtype)


def is_silent(network: Any) -> bool:
    """Whether the adapter adds nothing, as a new one."""
    return not any(bool(matrix.any()) for name, matrix in _matrices(network) if ".lora_B." in name)


def switch_off(network: Any) -> None:
    """Leave the adapter's products out from now on; it does not train any more."""
    for _, layer in _layers(network):
        layer.enable_adapters(False)


def fill(network: Any) -> None:
    """Switch the adapter on with some numbers, always the same, so that it can be seen whether it is computed."""
    generator = torch.Generator().manual_seed(0)
    for _, layer in _layers(network):
        layer.enable_adapters(True)
        down, up = layer.lora_A[NAME].weight.data, layer.lora_B[NAME].weight.data
        rank, inputs = down.shape
        down.copy_(torch.randn(down.shape, generator=generator) / inputs**0.5)
        up.copy_(torch.randn(up.shape, generator=generator) * PROBE / (rank**0.5 * layer.scaling[NAME]))


def digest_of(network: Any, base: Base) -> str:
    """Of the policy that base and adapter are together."""
    return tensors_digest(_matrices(network), f"{base.digest} {network.peft_config[NAME].lora_alpha}")


def save(network: Any, base: Base, folder: Path) -> None:
    """Write the adapter in peft's format, which `PeftModel.from_pretrained` reads, and what it lies on."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {_in_file(name): matrix.detach().cpu().contiguous() for name, matrix in _matrices(network)},
        folder / WEIGHTS,
        metadata={"format": "pt"},
    )
    settings = network.peft_config[NAME].to_dict() | {"base_model_name_or_path": base.path, "inference_mode": True}
    # Sets have another order in each process, and equal policies are equal files.
    ordered = {key: sorted(value) if isinstance(value, set) else value for key, value in settings.items()}
    (folder / CONFIG).write_text(json.dumps(ordered, indent=2, sort_keys=True) + "\n")
    (folder / BASE).write_text(json.dumps(asdict(base), indent=2) + "\n")


def saved_base(folder: Path) -> Base:
    """What the adapter in a folder lies on.

    Raises:
        DataError: that is not said there as `save` says it.
    """
    with reading(folder / BASE):
        return Base(**read_json(folder / BASE))


def saved_settings(folder: Path) -> Lora:
    """What the adapter in a folder is like.

    Raises:
        DataError: its settings are damaged.
    """
    with reading(folder / CONFIG):
        settings = read_json(folder / CONFIG)
        return Lora(rank=settings["r"], alpha=settings["lora_alpha"], targets=settings["target_modules"])


@torch.no_grad()
def load(network: Any, base: Base, folder: Path) -> None:
    """Give the adapter of a model the numbers of a saved one.

    Raises:
        DataError: that one was trained on other weights, or has another shape, or is damaged.
    """
    if (trained_on := saved_base(folder)).digest != base.digest:
        raise DataError(
            f"{folder}: the adapter was trained on the weights of {trained_on.path} (digest {trained_on.digest}), and "
            f"those of {base.path} are others (digest {base.digest}); give the folder that holds them as model.path"
        )
    from safetensors.torch import load_file

    own = dict(_matrices(network))
    with reading(folder / WEIGHTS):
        saved = load_file(folder / WEIGHTS)
        if {_in_file(name): matrix.shape for name, matrix in own.items()} != {k: v.shape for k, v in saved.items()}:
            raise ValueError("its matrices are not those of the adapter that its settings describe")
        for name, matrix in own.items():
            matrix.copy_(saved[_in_file(name)])


def convert(network: Any, base: Base, dtype: torch.dtype) -> None:
    """Keep adapter and frozen weights in another type; what the model keeps in a longer one than the others stays."""
    for name, parameter in network.named_parameters():
        if parameter.dtype == getattr(torch, base.dtype) or ".lora_" in name:
            parameter.data = parameter.data.to(dtype)


@torch.no_grad()
def merge(network: Any, dtype: torch.dtype) -> None:
    """Make a plain model of it again, the adapter's products in its weights, which are rounded to `dtype` once."""
    for name, layer in _layers(network):
        linear = layer.get_base_layer()
        # Layer by layer, so that no second copy of the model exists in the longer type.
        linear.weight.data = (linear.weight.float() + layer.get_delta_weight(NAME).float()).to(dtype)
        network.set_submodule(name, linear)
    for parameter in network.parameters():
        parameter.data = parameter.data.to(dtype)


def _layers(network: Any) -> list[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    return [(name, module) for name, module in network.named_modules() if isinstance(module, LoraLayer)]


def _matrices(network: Any) -> Iterator[tuple[str, Parameter]]:
    for name, parameter in network.named_parameters():
        if ".lora_A." in name or ".lora_B." in name:
            yield name, parameter


def _in_file(name: str) -> str:
    return PREFIX + name.replace(f".{NAME}.", ".")
