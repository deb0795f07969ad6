"""What empg is installed with: the packages it needs, the optional extras, and how to add one."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from empg_cli.uvx import uvx_program

CORE = (
    "typer",
    "hydra-core",
    "omegaconf",
    "rich",
    "pydantic",
    "numpy",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "wandb",
    "httpx",
    "tantivy",
    "rapidfuzz",
)


@dataclass(frozen=True, slots=True)
class Extra:
    packages: Sequence[str]
    brings: str


EXTRAS: Mapping[str, Extra] = {
    "report": Extra(("matplotlib", "jinja2"), "`empg report`: figures and the HTML page"),
    "joblib": Extra(("hydra-joblib-launcher",), "sweeps on several cores: hydra/launcher=joblib"),
    "submitit": Extra(("hydra-submitit-launcher",), "sweeps on Slurm: hydra/launcher=submitit_slurm"),
    "optuna": Extra(("hydra-optuna-sweeper", "sqlalchemy", "alembic"), "hyper-parameter search: hydra/sweeper=optuna"),
    "ray": Extra(("hydra-ray-launcher",), "sweeps on a Ray cluster: hydra/launcher=ray"),
    "bm25s": Extra(("bm25s",), "Deep Search without tantivy: retrieval@benchmark.retrieval=bm25s"),
    "dense": Extra(("faiss-cpu",), "Deep Search by embeddings: retrieval@benchmark.retrieval=dense"),
    "parquet": Extra(("pyarrow",), "official Deep Search questions in Parquet files"),
    "lora": Extra(("peft",), "adapters in place of all weights: model.lora.rank=16"),
    "bitsandbytes": Extra(("bitsandbytes",), "optimiser state in 8 bits: trainer.optimizer=adamw8bit"),
    "tensorboard": Extra(("tensorboard",), "event files in the run folder: logger=tensorboard"),
    "mlflow": Extra(("mlflow-skinny", "sqlalchemy", "alembic"), "MLflow runs: logger=mlflow"),
    "trackio": Extra(("trackio",), "Trackio on this machine: logger=trackio"),
    "swanlab": Extra(("swanlab",), "SwanLab, offline by default: logger=swanlab"),
    "gymnasium": Extra(("gymnasium",), "benchmarks as environments of Gymnasium (docs/integrations.md)"),
    "serve": Extra(("uvicorn",), "servers for others: `empg serve run=DIR`, `empg data serve deepsearch`"),
}

PLUGIN_EXTRAS: Mapping[str, Mapping[str, str]] = {
    "hydra/launcher": {
        "joblib": "joblib",
        "submitit_local": "submitit",
        "submitit_slurm": "submitit",
        "ray": "ray",
        "ray_aws": "ray",
    },
    "hydra/sweeper": {"optuna": "optuna"},
}
"""Hydra option -> the extra that brings its plugin."""


def install_command(extra: str) -> str:
    """The exact command for this installation: an editable checkout, the published package, or what uvx runs."""
    if (program := uvx_program(extra)) is not None:
        return shlex.join(program)
    if (checkout := _checkout()) is not None:
        return pip_install("-e", f"{checkout}[{extra}]")
    return pip_install(f"empg-cli[{extra}]")


def gpu_torch_command() -> str:
    """The command that brings a torch for NVIDIA GPUs into this installation; PyPI's own has CUDA."""
    return "make clean demo TORCH_BACKEND=auto" if _checkout() else pip_install("--force-reinstall", "torch")


def _checkout() -> Path | None:
    """The folder that empg runs from, if it was not installed from a wheel."""
    folder = Path(__file__).resolve().parents[2]
    return folder if (folder / "pyproject.toml").is_file() else None


def pip_install(*words: str) -> str:
    """The command that installs into the environment of this Python; one that uv has made has no pip of its own."""
    has_pip = importlib.util.find_spec("pip") is not None
    pip = [sys.executable, "-m", "pip", "install"] if has_pip else ["uv", "pip", "install", "--python", sys.executable]
    return shlex.join([*pip, *words])
