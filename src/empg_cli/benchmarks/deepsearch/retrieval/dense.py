"""Dense retrieval: a Hugging Face encoder and a FAISS index (extra `dense`).

The encoder's folder or hub id, its pooling and its prefixes are kept in `dense/encoder.json`, because an index is only
meaningful with the encoder that made it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from empg_cli.benchmarks.deepsearch.corpus import Passage, PassageStore, build_command
from empg_cli.benchmarks.deepsearch.manifest import read_manifest
from empg_cli.benchmarks.deepsearch.retrieval.base import MAX_QUERY_CHARS, Hit, query_words
from empg_cli.errors import DataError
from empg_cli.extras import install_command
from empg_cli.reading.guard import reading
from empg_cli.reading.streams import read_json

Vectors = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    model: str
    """Folder or hub id."""
    pooling: Literal["mean", "cls"] = "mean"
    query_prefix: str = ""
    """E5: `query: `."""
    passage_prefix: str = ""
    """E5: `passage: `."""
    max_tokens: int = 256


class Encoder:
    """Texts to unit vectors."""

    def __init__(self, spec: EncoderSpec, device: str) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        self._spec = spec
        wanted = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self._device = torch.device(wanted)
        with reading(f"the encoder {spec.model}", "Give a Hugging Face folder, or a hub id with network"):
            self._tokenizer = AutoTokenizer.from_pretrained(spec.model)
            self._model = AutoModel.from_pretrained(spec.model).to(self._device).eval()

    def encode(self, texts: Sequence[str]) -> Vectors:
        """float32 [len(texts), hidden]; inner product = cosine similarity."""
        import torch

        inputs = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=self._spec.max_tokens, return_tensors="pt"
        ).to(self._device)
        with torch.inference_mode():
            states = self._model(**inputs).last_hidden_state
            if self._spec.pooling == "cls":
                pooled = states[:, 0]
            else:
                mask = inputs["attention_mask"].unsqueeze(-1)
                pooled = (states * mask).sum(1) / mask.sum(1)
            unit = torch.nn.functional.normalize(pooled.float(), dim=-1)
        vectors: Vectors = unit.cpu().numpy()
        return vectors


class DenseRetriever:
    name = "dense"
    is_local = True

    def __init__(self, directory: Path, *, device: str) -> None:
        faiss = _faiss()
        if not (directory / "dense" / "vectors.faiss").is_file():
            raise DataError(
                f"{directory} holds no dense index; build it: "
                + build_command(directory, "--engine", "dense", "--encoder", "MODEL")
            )
        self._manifest = read_manifest(directory)
        self.store = PassageStore(directory)
        with reading(directory / "dense", f"Build it again: {build_command(directory, '--engine', 'dense')}"):
            self._index = faiss.read_index(str(directory / "dense" / "vectors.faiss"))
            self._spec = EncoderSpec(**read_json(directory / "dense" / "encoder.json"))
        self._encoder = Encoder(self._spec, device)

    async def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        asked = [query for query in queries if query_words(query)]
        found = iter(self._search(asked, top_k) if asked else [])
        return [next(found) if query_words(query) else [] for query in queries]

    def _search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        vectors = self._encoder.encode([self._spec.query_prefix + query[:MAX_QUERY_CHARS] for query in queries])
        scores, rows = self._index.search(vectors, min(top_k, len(self.store)))
        return [
            [self._hit(int(row), float(score)) for row, score in zip(*pair, strict=True) if row >= 0]
            for pair in zip(rows, scores, strict=True)
        ]

    def _hit(self, row: int, score: float) -> Hit:
        passage = self.store[row]
        return Hit(passage.id, passage.title, passage.text, score, passage.url)

    async def open(self, id_: str) -> Hit | None:
        page = self.store.page(id_)
        return Hit(page.id, page.title, page.text, url=page.url) if page else None

    async def check(self) -> None:
        """An index that opened answers."""

    def fingerprint(self) -> dict[str, Any]:
        return {"engine": self.name, **self._manifest, "encoder": asdict(self._spec)}

    async def close(self) -> None:
        """Nothing to release."""


def build_dense(
    store: PassageStore,
    directory: Path,
    *,
    encoder: EncoderSpec,
    device: str = "auto",
    batch_size: int = 64,
    progress: Callable[[int], None] = lambda rows: None,
) -> None:
    """Encode every passage into a flat inner-product index in `directory/dense`."""
    faiss = _faiss()
    model = Encoder(encoder, device)
    index: Any = None
    done = 0
    for batch in _batches(store, batch_size):
        vectors = model.encode([encoder.passage_prefix + _text(passage) for passage in batch])
        if index is None:
            index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        done += len(batch)
        progress(done)
    path = directory / "dense"
    path.mkdir(parents=True)
    faiss.write_index(index, str(path / "vectors.faiss"))
    (path / "encoder.json").write_text(json.dumps(asdict(encoder), indent=1) + "\n", encoding="utf-8")


def _text(passage: Passage) -> str:
    """wiki-18's form, which E5 indexes of the field are built on."""
    return f'"{passage.title}"\n{passage.text}'


def _batches(store: PassageStore, size: int) -> Iterator[list[Passage]]:
    passages = iter(store)
    while batch := list(islice(passages, size)):
        yield batch


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise DataError(f"the engine dense needs the package faiss-cpu: {install_command('dense')}") from None
    return faiss
