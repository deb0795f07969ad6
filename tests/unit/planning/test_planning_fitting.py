"""What `auto` stands for, and the ways out that are told: all of them fit, and a little more would not."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from empg_cli.config import load
from empg_cli.config.schema import TrainConfig
from empg_cli.planning.auto import playing_within_memory, with_all_at_once, within_memory
from empg_cli.planning.fitting import CLEARLY, FILLED, LEVERS, PROPOSED, fits, is_clearly_too_large, settled, ways_out
from empg_cli.planning.hardware import Hardware
from empg_cli.planning.job import Job, job_of
from empg_cli.planning.memory import peak, phases
from empg_cli.planning.plan import DoesNotFit, plan_of

GB = 10**9


def job(*overrides: str, device: str = "cpu") -> Job:
    found = job_of(load(list(overrides)), device)
    assert found is not None
    return found


SMOL = job("model=smollm2-135m", "trainer.tokens_per_microbatch=auto")
FIXED = job("model=smollm2-135m", "rollout.max_concurrent=0", "trainer.tokens_per_microbatch=32768",
            "rollout.max_context_tokens=4096")  # fmt: skip


def total(found: Job, phase: str) -> int:
    return next(one.total for one in phases(found) if one.name == phase)


@pytest.mark.parametrize("memory", [6 * GB, 8 * GB, 12 * GB, 16 * GB])
def test_one_episode_more_than_auto_would_be_too_much(memory: int) -> None:
    found = settled(SMOL, memory)
    assert found.concurrent is not None and 1 < found.concurrent < found.episodes
    assert total(found, "rollout") <= FILLED * memory
    assert total(replace(found, concurrent=found.concurrent + 1), "rollout") > FILLED * memory


@pytest.mark.parametrize("memory", [6 * GB, 12 * GB, 24 * GB, 48 * GB])
def test_twice_the_tokens_of_auto_would_be_too_much(memory: int) -> None:
    found = settled(replace(SMOL, device="cuda"), memory)
    assert found.microbatch is not None
    assert (
        found.microbatch == 32_768 or total(replace(found, microbatch=2 * found.microbatch), "update") > FILLED * memory
    )
    assert found.microbatch <= found.context or total(found, "update") <= FILLED * memory


def test_with_memory_to_spare_all_play_at_once_and_passes_are_as_large_as_pays() -> None:
    assert settled(SMOL, 10**15).concurrent == SMOL.episodes == 160
    assert settled(SMOL, 10**15).microbatch == 4096
    assert settled(replace(SMOL, device="cuda"), 10**15).microbatch == 32_768
    assert settled(SMOL, None) == settled(SMOL, 10**15)


def test_one_episode_plays_however_little_there_is() -> None:
    assert settled(SMOL, GB).concurrent == 1


def test_given_numbers_stay() -> None:
    assert settled(FIXED, GB) == FIXED


def test_a_row_is_never_split_so_fewer_tokens_than_the_context_save_nothing() -> None:
    small = replace(FIXED, microbatch=256)
    assert total(small, "update") == total(replace(FIXED, microbatch=FIXED.context), "update")


@settings(deadline=None, max_examples=40)
@given(
    memory=st.integers(2 * GB, 60 * GB),
    tokens=st.sampled_from([512, 4096, 32_768]),
    context=st.sampled_from([1024, 4096]),
)
def test_every_way_out_fits_and_changes_what_it_says(memory: int, tokens: int, context: int) -> None:
    hungry = replace(FIXED, microbatch=tokens, context=context)
    ways = ways_out(hungry, memory)
    assert len(ways) <= PROPOSED
    for way in ways:
        assert fits(way.job, memory) and way.job.is_settled
        assert len(way.settings) == len({word.split("=")[0] for word in way.settings}) <= len(LEVERS)


def assert_ways_out_hold(words: list[str], hardware: Hardware) -> None:
    """The run is refused, and with each way out it fits and takes what is said."""
    plan = plan_of(load(words), hardware)
    assert plan is not None and plan.is_refused and plan.ways_out
    for way in plan.ways_out:
        again = plan_of(load([*words, *way.settings]), hardware)
        assert again is not None and again.fits
        assert again.peak.total == peak(way.job).total


def test_ways_out_are_overrides_that_a_run_can_be_given() -> None:
    words = ["model=smollm2-135m", "rollout.max_concurrent=0", "trainer.tokens_per_microbatch=32768",
             "rollout.max_context_tokens=4096"]  # fmt: skip
    hardware = Hardware("here", "cpu", 8 * GB)
    assert_ways_out_hold(words, hardware)


@pytest.mark.parametrize(
    ("model", "memory"), [("qwen2.5-1.5b", 24 * GB), ("qwen3-4b", 48 * GB), ("llama3.2-1b", 16 * GB)]
)
def test_ways_out_of_a_run_with_auto_take_what_they_say(model: str, memory: int) -> None:
    words, hardware = [f"model={model}"], Hardware("a card", "cuda", memory)
    assert_ways_out_hold(words, hardware)


def test_the_machine_around_a_gpu_has_to_read_the_weights() -> None:
    """7.6 billion numbers: 30.5 GB in float32, 15.2 in bfloat16, which is how those below an adapter are read."""
    card = Hardware("a card", "cuda", 800 * GB, host_memory=20 * GB)
    full = plan_of(load(["experiment=paper_7b"]), card)
    assert full is not None and full.is_refused and full.ways_out == []
    assert "the machine around the GPU has 20.0 GB free" in full.reason and "param_dtype=bfloat16 halves" in full.reason
    half = plan_of(load(["experiment=paper_7b", "model.param_dtype=bfloat16"]), card)
    assert half is not None and half.fits
    adapter = plan_of(load(["model=qwen2.5-7b"]), Hardware("a card", "cuda", 800 * GB, host_memory=12 * GB))
    assert adapter is not None and adapter.is_refused and "halves" not in adapter.reason
    assert not replace(adapter, hardware=card).is_refused


def test_the_mildest_way_out_comes_first() -> None:
    """Half the tokens, not a quarter, and before what changes results; where the cache alone is too large, it alone."""
    (first, *_) = ways_out(FIXED, 45 * GB)
    assert first.settings == ("trainer.tokens_per_microbatch=16384",)
    (first, *_) = ways_out(replace(FIXED, microbatch=4096), 36 * GB)
    assert first.settings == ("rollout.max_concurrent=auto",)


def test_only_what_is_clearly_too_large_is_refused() -> None:
    needed = peak(FIXED).total
    assert not is_clearly_too_large(FIXED, int(CLEARLY * needed) + 1)
    assert is_clearly_too_large(FIXED, int(CLEARLY * needed) - 1)
    assert not fits(FIXED, needed - 1) and fits(FIXED, needed)
    assert not is_clearly_too_large(FIXED, None)


# --- a run's configuration ---


def smol(*overrides: str) -> TrainConfig:
    return load(["model=smollm2-135m", *overrides])


def test_a_run_gets_numbers_and_keeps_those_that_it_has_recorded() -> None:
    small, large = Hardware("here", "cpu", 8 * GB), Hardware("here", "cpu", 12 * GB)
    asked = smol()
    cfg, plan = within_memory(asked, small, {})
    assert plan is not None and cfg.rollout.max_concurrent == plan.settled["rollout.max_concurrent"]
    assert cfg.rollout.places == cfg.rollout.max_concurrent != within_memory(asked, large, {})[0].rollout.places
    assert set(plan.chosen) == {"rollout.max_concurrent"}  # the preset gives the tokens itself
    assert within_memory(asked, large, plan.chosen)[0] == cfg
    assert cfg.model_copy(update={"rollout": asked.rollout}) == asked


def test_what_is_given_goes_before_what_is_recorded() -> None:
    recorded = {"rollout.max_concurrent": 9, "trainer.tokens_per_microbatch": 512}
    cfg, _ = within_memory(smol("rollout.max_concurrent=5"), Hardware("here", "cpu", 12 * GB), recorded)
    assert (cfg.rollout.places, cfg.trainer.microbatch_tokens) == (5, 2048)
    cfg, _ = within_memory(smol("trainer.tokens_per_microbatch=auto"), Hardware("here", "cpu", 12 * GB), recorded)
    assert (cfg.rollout.places, cfg.trainer.microbatch_tokens) == (9, 512)


def test_auto_after_a_number_is_settled_by_what_there_is() -> None:
    """The advice of a run that has run out of memory: nothing of its own number is recorded."""
    hardware = Hardware("here", "cpu", 8 * GB)
    _, before = within_memory(smol("rollout.max_concurrent=40"), hardware, {})
    assert before is not None and before.chosen == {}
    asked = smol("trainer.tokens_per_microbatch=auto")
    cfg, plan = within_memory(asked, hardware, before.chosen)
    assert plan is not None and plan.fits and cfg == within_memory(asked, hardware, {})[0]


def test_what_is_recorded_and_does_not_fit_by_now_is_settled_anew(caplog: pytest.LogCaptureFixture) -> None:
    recorded = {"rollout.max_concurrent": 160, "trainer.tokens_per_microbatch": 2048}
    with caplog.at_level(logging.WARNING):
        cfg, _ = within_memory(smol(), Hardware("here", "cpu", 8 * GB), recorded)
    assert cfg.rollout.places < 160
    assert "do not fit here by now" in caplog.text


def test_a_run_that_cannot_fit_is_refused_with_what_would() -> None:
    with pytest.raises(DoesNotFit) as raised:
        within_memory(smol("rollout.max_concurrent=0"), Hardware("this machine", "cpu", 8 * GB), {})
    said = str(raised.value)
    assert "smollm2-135m does not fit into the 8.0 GB of this machine: phase rollout would take about" in said
    assert "    rollout.max_concurrent=auto" in said


def test_a_model_that_nobody_knows_is_planned_as_if_it_fits() -> None:
    cfg, plan = within_memory(load(["model=local", "model.path=owner/unheard-of"]), Hardware("here", "cpu", GB), {})
    assert plan is None and (cfg.rollout.places, cfg.trainer.microbatch_tokens) == (0, 4096)


def test_an_evaluation_holds_weights_and_cache_alone() -> None:
    cfg = load(["model=smollm2-135m"], "eval")
    few = playing_within_memory(cfg, Hardware("here", "cpu", 4 * GB)).rollout.places
    many = playing_within_memory(cfg, Hardware("here", "cpu", 8 * GB)).rollout.places
    training = within_memory(smol(), Hardware("here", "cpu", 8 * GB), {})[0].rollout.places
    assert 1 <= few < many and many > training
    assert with_all_at_once(cfg).rollout.places == 0


@pytest.mark.parametrize(("share", "proposed"), [(0.9, ["rollout.vllm.gpu_memory=0.5"]), (0.3, [])])
def test_servers_that_take_too_much_are_told_to_take_less(share: float, proposed: list[str]) -> None:
    """0.9 of 80 GB beside a model of 25 GB; at 0.3 nothing smaller holds a server."""
    words = ["benchmark=webshop", "model=qwen2.5-1.5b", "rollout=transcript", "rollout.engine=vllm"]
    words += ["model.gradient_checkpointing=true", f"rollout.vllm.gpu_memory={share}"]
    plan = plan_of(load(words), Hardware("80 GB", "cuda", 80 * GB))
    assert plan is not None and plan.is_refused is bool(proposed)
    if proposed:
        assert [way.text for way in plan.ways_out][:1] == proposed
        assert_ways_out_hold(words, Hardware("80 GB", "cuda", 80 * GB))
