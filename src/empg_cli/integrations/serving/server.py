"""From a run's checkpoint to a server that answers until it is stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from empg_cli.agents.chat_template import generation_ends
from empg_cli.agents.codec import ChatCodec, CompactCodec
from empg_cli.config.schema import EvalConfig
from empg_cli.errors import UserError
from empg_cli.extras import install_command
from empg_cli.integrations.serving.answering import Answerer
from empg_cli.integrations.serving.app import ServingApp
from empg_cli.integrations.serving.guard import OwnMachineOnly
from empg_cli.model.loading import check_context, load_to_play, pick_device
from empg_cli.model.policy import Policy
from empg_cli.rollout.parity import check_parity
from empg_cli.runs.checkpoint import MODEL, load_state
from empg_cli.runs.facts import prompt_date
from empg_cli.runs.which_checkpoint import hold_checkpoint
from empg_cli.services.listening import address, bound, is_loopback, serve_until_stopped

Say = Callable[[str], None]
FINISH_S = 3
"""After Ctrl-C, requests under way have so long to end."""
MOST_CONNECTIONS = 1024
"""At once; more are told to come again (503)."""
UNBOUNDED_TOKENS = 8192
"""Of prompt and answer, for a model whose config names no positions."""


def serve(
    run: Path,
    cfg: EvalConfig,
    *,
    host: str,
    port: int,
    name: str,
    most_tokens: int | None,
    most_at_once: int,
    say: Say,
) -> None:
    """Serve the policy of a run until a signal ends it.

    Args:
        run: a run folder or a checkpoint.
        cfg: says which checkpoint of it, on what device, and how many tokens an answer has by default.
        port: 0 takes a free one.
        name: of the model, in requests.
        most_tokens: of a prompt and its answer; None = as many as the model has positions.

    Raises:
        UserError: uvicorn is missing, the port is taken, or the policy cannot be played.
    """
    try:
        from empg_cli.integrations.serving.protocol import BoundedHead  # brings uvicorn
    except ImportError:
        raise UserError(f"serving needs the package uvicorn: {install_command('serve')}") from None
    if cfg.trainer.threads:
        torch.set_num_threads(cfg.trainer.threads)
    with bound(host, port, hint="give another host=... or port=..., or port=0 for a free one") as listening:
        policy, source, version = _policy(run, cfg)
        positions = getattr(policy.model.config, "max_position_embeddings", None) or UNBOUNDED_TOKENS
        check_context(policy, most_tokens or 1)
        check_parity(policy)
        with Answerer(
            policy,
            _codec(policy, cfg),
            version=version,
            most_tokens=most_tokens or positions,
            most_at_once=most_at_once,
        ) as answerer:
            is_open, limit = not is_loopback(listening), cfg.rollout.max_new_tokens
            told = Path(source).name if is_open else source
            app = ServingApp(answerer, name=name, source=told, default_tokens=limit, is_open=is_open)
            if is_open:
                say(f"warning: whoever reaches {host} can use the model, no key is asked; host=127.0.0.1 is for here")
            listening.listen()  # who reads the next line may connect
            say(f"serving {name} ({source}) at {address(host, listening)}/v1; Ctrl-C ends it")
            serve_until_stopped(
                app if is_open else OwnMachineOnly(app, host, listening.getsockname()[0]),
                listening,
                say,
                http=BoundedHead,
                limit_concurrency=MOST_CONNECTIONS,
                timeout_graceful_shutdown=FINISH_S,
            )


def _policy(run: Path, cfg: EvalConfig) -> tuple[Policy, str, int]:
    """The policy, where it comes from, and how many updates it has seen."""
    with hold_checkpoint(run, cfg.checkpoint) as held:
        policy = load_to_play(held.checkpoint / MODEL, cfg.model, cfg.benchmark.name, pick_device(cfg.trainer.device))
        return policy, str(held.checkpoint), load_state(held.checkpoint).update


def _codec(policy: Policy, cfg: EvalConfig) -> CompactCodec | ChatCodec:
    if cfg.model.prompt == "compact":
        return CompactCodec(policy.tokenizer)
    return ChatCodec(policy.tokenizer, end_ids=generation_ends(policy.model), today=prompt_date(cfg.run))
