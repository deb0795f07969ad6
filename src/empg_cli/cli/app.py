"""The command line. Declares what can be typed; the work is in `commands`, imported when a command is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from empg_cli.cli.data_app import data_app
from empg_cli.cli.flags import HydraCommand, HydraFlags, Overrides, OverridesCommand, user_border, with_hydra_flags
from empg_cli.invocation import command

app = typer.Typer(
    name="empg",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Train, evaluate and compare language-model agents on long tasks: [bold]EMPG[/bold], GRPO, DAPO.",
    epilog=f"Try: [cyan]{command('train')}[/cyan]   ·   "
    f"[cyan]{command('train', 'algo=grpo', '-m', 'seed=0,1,2')}[/cyan]   ·   "
    f"[cyan]{command('eval', 'run=runs/...')}[/cyan]",
)


def _version(value: bool) -> None:
    if value:
        from empg_cli import __version__

        print(f"empg {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command(cls=HydraCommand, epilog=f"Every key with its value: [cyan]{command('train', '--cfg', 'job')}[/cyan]")
@with_hydra_flags()
def train(
    overrides: Overrides = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            "--resume",
            metavar="DIR",
            help="Go on with a run from its newest good checkpoint (or the checkpoint given), with its own config.",
        ),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="With --resume: begin the run anew; what is there is set aside.")
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only print the resolved config, the data, the model and the cost.")
    ] = False,
    *,
    flags: HydraFlags,
) -> None:
    """Train an agent: [bold]empg train benchmark=alfworld algo=empg[/bold]."""
    with user_border():
        if plan:
            if resume is not None or restart:
                raise typer.BadParameter("is about a new run; leave --resume out", param_hint="--plan")
            from empg_cli.cli.commands import train_plan

            train_plan.run(overrides or [], flags)
            return
        from empg_cli.cli.commands import train as command

        command.run(overrides or [], flags, resume, restart=restart)


@app.command(
    "eval", cls=HydraCommand, epilog=f"Every key with its value: [cyan]{command('eval', '--cfg', 'job')}[/cyan]"
)
@with_hydra_flags()
def evaluate(
    overrides: Overrides = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--compare",
            metavar="A B",
            help="Play nothing: paired statistics of two evaluations (run folders, eval folders or files of them).",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
    *,
    flags: HydraFlags,
) -> None:
    """Play each task of a split: [bold]empg eval run=DIR[/bold]; or model=NAME, endpoint=openai, policy=expert."""
    with user_border():
        if compare is not None:
            if overrides:
                raise typer.BadParameter("plays nothing, so it takes no overrides", param_hint="--compare")
            from empg_cli.cli.commands import compare as comparison

            comparison.run(*compare, as_json=as_json)
            return
        from empg_cli.cli.commands import evaluate as command

        command.run(overrides or [], flags, as_json=as_json)


@app.command(cls=HydraCommand, epilog="An ablation of your own: docs/ablations.md")
@with_hydra_flags(leave_out=("multirun", "config_path", "rerun"))
def ablate(
    overrides: Overrides = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, metavar="N", help="Runs at once (extra: joblib).")] = 1,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only print the cells, the time they take and the seeds that are needed.")
    ] = False,
    detect: Annotated[
        float | None,
        typer.Option(
            "--detect",
            min=1e-6,
            metavar="D",
            show_default="0.03",
            help="With --plan: the difference you want to see, in the metric's unit: 0.03 are 3 points of success.",
        ),
    ] = None,
    sd: Annotated[
        float | None,
        typer.Option("--sd", min=0.0, metavar="SD", help="With --plan: standard deviation of the paired difference."),
    ] = None,
    across: Annotated[
        bool, typer.Option("--across", help="The words are finished studies: one table over all of them; runs nothing.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="With --across: write the table there too.")
    ] = None,
    *,
    flags: HydraFlags,
) -> None:
    """Compare variants over seeds: [bold]empg ablate ablation=components seeds=5[/bold]. The same command goes on."""
    with user_border():
        from empg_cli.cli.commands import ablate as command

        if across:
            own: dict[str, object] = {"--plan": plan, "--jobs": jobs != 1, "--detect": detect, "--sd": sd is not None}
            _refuse_idle(own | flags.given(), "is not read by --across, which plays nothing")
            command.across(overrides or [], out)
            return
        _refuse_idle({"--out": out is not None}, "is read by --across only; a study writes into run_dir")
        if not plan:
            _refuse_idle({"--detect": detect, "--sd": sd is not None}, "is read by --plan only, which plays nothing")
        wish = (0.03 if detect is None else detect, sd) if plan else None
        command.run(overrides or [], flags, jobs=jobs, wish=wish)


def _refuse_idle(given: Mapping[str, object], why: str) -> None:
    """A flag that would do nothing is a mistake; `--detect` without `--plan` would start hours of training."""
    if idle := [flag for flag, value in given.items() if value]:
        raise typer.BadParameter(why, param_hint=", ".join(idle))


@app.command(
    epilog="More than one run of a configuration gives bands over seeds: "
    f"[cyan]{command('report', 'runs/a', 'runs/b')}[/cyan]"
)
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, sweeps or studies.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Where to write; by default RUN/report.")
    ] = None,
    figures: Annotated[
        bool, typer.Option("--figures/--no-figures", help="Curves as PNG, PDF and SVG (extra: report).")
    ] = True,
) -> None:
    """Draw curves and one HTML page, with every step's entropy and credit: [bold]empg report runs/...[/bold]."""
    with user_border():
        from empg_cli.cli.commands import report as command

        command.run(runs, out, figures=figures)


@app.command(
    cls=OverridesCommand,
    epilog="Writes RUN/diagnostics/, which `empg report` draws. What it means: docs/diagnostics.md",
)
def diagnose(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or one of its checkpoints.")],
    overrides: Overrides = None,
    episodes: Annotated[
        int, typer.Option("--episodes", min=2, metavar="N", help="Tasks of the split to play, once each.")
    ] = 32,
    gradients: Annotated[
        int, typer.Option("--gradients", min=0, metavar="N", help="Steps whose real gradient is computed; 0 = none.")
    ] = 64,
    before: Annotated[
        str | None,
        typer.Option(
            "--before",
            metavar="POLICY",
            help="Earlier policy for the change of entropy: [cyan]initial[/cyan] or a checkpoint; else the earliest.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="By default RUN/diagnostics.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Check EMPG's theory on a policy of yours: Proposition 1, gradient norms, Figure 3."""
    with user_border():
        from empg_cli.cli.commands import diagnose as command

        command.run(
            run, overrides or [], episodes=episodes, gradients=gradients, before=before, out=out, as_json=as_json
        )


@app.command(
    cls=OverridesCommand,
    epilog="Also: checkpoint=best|last|N  dtype=float32|bfloat16  adapter=true  model.path=DIR  private=false. "
    "More: docs/models.md, docs/integrations.md",
)
def export(
    overrides: Overrides = None,
    to: Annotated[Literal["hf"], typer.Option("--to", help="The form: a folder of Hugging Face's.")] = "hf",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With hub=owner/name: show what would be pushed, push nothing.")
    ] = False,
) -> None:
    """Write a run's policy as a Hugging Face folder: [bold]empg export run=DIR out=FOLDER[/bold], or hub=owner/name."""
    with user_border():
        from empg_cli.cli.commands import export as command

        command.run(overrides or [], dry_run=dry_run)


@app.command(
    cls=OverridesCommand,
    epilog="Also: checkpoint=best|last|N  host=127.0.0.1  port=8000  name=NAME  max_concurrent=32  "
    "max_context_tokens=N. More: docs/integrations.md",
)
def serve(overrides: Overrides = None) -> None:
    """Answer OpenAI's clients with a run's policy: [bold]empg serve run=DIR[/bold], on this machine only."""
    with user_border():
        from empg_cli.cli.commands import serve as command

        command.run(overrides or [])


@app.command(cls=OverridesCommand, epilog="What verl does otherwise, and what was tried: docs/verl.md")
def verl(overrides: Overrides = None) -> None:
    """Hand a training over to verl: [bold]empg verl out=FOLDER model=qwen2.5-7b rollout=window[/bold]."""
    with user_border():
        from empg_cli.cli.commands import verl as command

        command.run(overrides or [])


@app.command(
    cls=OverridesCommand,
    epilog="plan.hardware=here, 1x24GB, 1x80GB, 8x80GB or cpu-8GB. What does not fit ends with exit code 2.",
)
def plan(
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON on stdout.")] = False,
) -> None:
    """What a run would take: [bold]empg plan model=qwen2.5-1.5b plan.hardware=1x80GB[/bold]."""
    with user_border():
        from empg_cli.cli.commands import plan as command

        command.run(overrides or [], as_json=as_json)


@app.command()
def show(
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="A run folder, or that of an evaluation.")] = None,
    trajectories: Annotated[
        int, typer.Option("--trajectories", "-n", min=0, metavar="N", help="How many trajectories to print.")
    ] = 2,
    texts: Annotated[
        bool, typer.Option("--texts", help="With each step's prompt and response, as the model read and wrote them.")
    ] = False,
    metrics: Annotated[
        bool, typer.Option("--metrics", help="List what every metric means; a word instead of RUN narrows it down.")
    ] = False,
) -> None:
    """Print a run: curves, and trajectories with the credit of every step; or `--metrics`."""
    with user_border():
        from empg_cli.cli.commands import report as command

        if metrics:
            command.show_metrics(str(run) if run else None)
        elif run is None:
            raise typer.BadParameter("give a run folder, or --metrics", param_hint="RUN")
        else:
            command.show(run, trajectories=trajectories, texts=texts)


@app.command(cls=HydraCommand)
def play(
    overrides: Overrides = None,
    task: Annotated[int, typer.Option("--task", min=0, metavar="N", help="Number of the task in its split.")] = 0,
) -> None:
    """Play a task yourself: [bold]empg play benchmark=alfworld benchmark.split=valid_unseen[/bold]."""
    with user_border():
        from empg_cli.cli.commands import play as command

        command.run(overrides or [], task)


@app.command()
def init(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A new folder; its last part names the game.")],
) -> None:
    """Begin a project with a text benchmark of your own: [bold]empg init my-game[/bold]."""
    with user_border():
        from empg_cli.cli.commands import init as command

        command.run(name)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON on stdout.")] = False,
) -> None:
    """Look at this machine and installation: versions, GPU, data, extras, W&B. Asks nothing, changes nothing."""
    with user_border():
        from empg_cli.cli.commands import doctor as command

        if not command.run(as_json=as_json):
            raise typer.Exit(1)


app.add_typer(data_app, name="data")
