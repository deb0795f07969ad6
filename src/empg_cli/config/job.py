"""A single job from its command line: what it leaves unsaid, composed, validated."""

from __future__ import annotations

from collections.abc import Sequence

from empg_cli.config.compose import Config, compose_job, hydra_session, parse, validate
from empg_cli.config.unsaid import with_unsaid


def load_job(config_name: str, overrides: Sequence[str], schema: type[Config], config_dir: str | None = None) -> Config:
    """Compose and validate a single job.

    Raises:
        ConfigError: with every problem at once.
    """
    overrides, _ = with_unsaid(overrides, config_name, config_dir)
    with hydra_session(config_name, config_dir) as session:
        parsed, problems = parse(overrides, session.loader)
        cfg, refused = compose_job(parsed, schema, session)
        return validate(cfg, schema, [*problems, *refused])
