"""`empg data`: prepare benchmark data. Imported with the command line, so nothing heavy is imported here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from empg_cli.cli.flags import Overrides, OverridesCommand, user_border

Official = Literal["alfworld", "webshop", "deepsearch"]
FETCH_WORDS = "mirror=URL  unpack=true (alfworld)  official_set=small|full (webshop)"

data_app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, help="Prepare benchmark data, and take trajectories out."
)


@data_app.command("index")
def data_index(
    benchmark: Annotated[Literal["deepsearch"], typer.Argument(help="Whose data.")],
    corpus: Annotated[
        list[Path], typer.Option("--corpus", metavar="FILE", help="Passages: wiki-18 jsonl, or title and text as json.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="New folder for the index.")],
    engine: Annotated[
        Literal["tantivy", "bm25s", "dense"], typer.Option("--engine", help="Search engine.")
    ] = "tantivy",
    encoder: Annotated[
        str | None, typer.Option("--encoder", metavar="MODEL", help="dense: Hugging Face folder or hub id.")
    ] = None,
    pooling: Annotated[Literal["mean", "cls"], typer.Option("--pooling", help="dense: tokens to vector.")] = "mean",
    query_prefix: Annotated[str, typer.Option("--query-prefix", help="dense: such as 'query: ' for E5.")] = "",
    passage_prefix: Annotated[str, typer.Option("--passage-prefix", help="dense: such as 'passage: ' for E5.")] = "",
    device: Annotated[str, typer.Option("--device", help="dense: auto, cpu, cuda.")] = "auto",
) -> None:
    """Index a corpus for Deep Search: [bold]empg data index deepsearch --corpus wiki-18.jsonl --out DIR[/bold]."""
    with user_border():
        from empg_cli.cli.commands import data_deepsearch as command

        command.index(
            corpus,
            out,
            engine,
            encoder=encoder,
            pooling=pooling,
            query_prefix=query_prefix,
            passage_prefix=passage_prefix,
            device=device,
        )


@data_app.command("serve")
def data_serve(
    benchmark: Annotated[Literal["deepsearch"], typer.Argument(help="Whose data.")],
    index_dir: Annotated[
        Path | None,
        typer.Option("--index", metavar="DIR", help="Folder made by `data index`; else the generated world."),
    ] = None,
    mode: Annotated[Literal["fictional", "real"], typer.Option("--world", help="Which generated world.")] = "fictional",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the generated world.")] = 0,
    cache_dir: Annotated[Path | None, typer.Option("--cache-dir", metavar="DIR", help="Where worlds are kept.")] = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; 0.0.0.0 opens it to the network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535)] = 8000,
    top_k: Annotated[int, typer.Option("--topk", min=1, help="Hits when a request does not say.")] = 3,
) -> None:
    """Serve a search engine as Search-R1's [bold]/retrieve[/bold], on this machine only unless told otherwise."""
    with user_border():
        from empg_cli.cli.commands import data_deepsearch as command

        command.serve(index_dir, mode=mode, seed=seed, cache_dir=cache_dir, host=host, port=port, top_k=top_k)


@data_app.command("compile")
def data_compile(
    benchmark: Annotated[Literal["webshop"], typer.Argument(help="Whose data.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="New folder for the compiled catalogue.")],
    data_dir: Annotated[Path | None, typer.Argument(metavar="[DATA_DIR]", help="Folder of the official files.")] = None,
    which: Annotated[Literal["small", "full"], typer.Option("--set", help="Which official files.")] = "full",
    generate: Annotated[
        int | None,
        typer.Option("--generate", min=10, metavar="N", help="Instead of official files: a shop of N products."),
    ] = None,
    shop_seed: Annotated[int, typer.Option("--shop-seed", min=0, help="Seed of the generated products.")] = 0,
    price_seed: Annotated[int, typer.Option("--price-seed", min=0, help="Seed of prices and price ceilings.")] = 0,
) -> None:
    """Compile a catalogue once, so that any number of products opens at once and is shared by all processes."""
    with user_border():
        from empg_cli.cli.commands import data as command

        command.compile_catalogue(
            data_dir, out, which=which, generate=generate, shop_seed=shop_seed, price_seed=price_seed
        )


@data_app.command("trajectories", cls=OverridesCommand, epilog="Also: phase=train|eval. More: docs/integrations.md")
def data_trajectories(overrides: Overrides = None) -> None:
    """The steps that a run kept, as a dataset: [bold]empg data trajectories run=DIR out=NEW/FILE.parquet[/bold]."""
    with user_border():
        from empg_cli.cli.commands import data_trajectories as command

        command.run(overrides or [])


@data_app.command("fetch", cls=OverridesCommand, epilog="Also: " + FETCH_WORDS + ". More: docs/official-data.md")
def data_fetch(
    benchmark: Annotated[Official, typer.Argument(metavar="BENCH", help="alfworld, webshop or deepsearch.")],
    overrides: Overrides = None,
) -> None:
    """Get the official files: [bold]empg data fetch alfworld data_dir=DIR[/bold]; goes on after an interruption."""
    with user_border():
        from empg_cli.cli.commands import data_fetch as command

        command.run(benchmark, overrides or [])


@data_app.command(
    "verify",
    cls=OverridesCommand,
    epilog="Exit code 2 where something is missing or different. More: docs/official-data.md",
)
def data_verify(
    benchmark: Annotated[Official, typer.Argument(metavar="BENCH", help="alfworld, webshop or deepsearch.")],
    overrides: Overrides = None,
) -> None:
    """Compare a folder with the official files: sizes, checksums, counts, and what to place where."""
    with user_border():
        from empg_cli.cli.commands import data_verify as command

        command.run(benchmark, overrides or [])
