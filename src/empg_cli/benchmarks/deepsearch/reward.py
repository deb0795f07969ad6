"""From an answer's value in [0, 1] to the episode's reward in [0, 1] or below: format shaping."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shaping:
    """All zeros: the reward is the answer's value (EMPG, Search-R1 v0.1). Search-R1 v0.3 is structure 0.2, answered
    0.1; DeepResearcher is penalty 1 with the F1 value."""

    structure: float = 0.0
    """Taken from a right answer in a malformed transcript, given to a wrong one in a well-formed transcript."""
    answered: float = 0.0
    """Given to a wrong answer in a malformed transcript."""
    evidence: float = 0.0
    """Added to `structure` of a wrong answer when a gold answer had been retrieved."""
    penalty: float = 0.0
    """Subtracted when the transcript is malformed."""

    @property
    def is_off(self) -> bool:
        return not (self.structure or self.answered or self.evidence or self.penalty)


def shaped_reward(
    value: float, shaping: Shaping, *, was_answered: bool, is_well_formed: bool, evidence_was_shown: bool
) -> float:
    """Search-R1's table (PeterGriffinJin/Search-R1 `qa_em_format.py`), with a partial value such as F1 never lowered:

    | answer | well formed | malformed |
    |---|---|---|
    | right (value 1) | 1 | 1 - structure - penalty |
    | wrong | structure (+ evidence) | answered - penalty |
    | none | structure (+ evidence) | - penalty |
    """
    if is_well_formed:
        return max(value, shaping.structure + shaping.evidence * evidence_was_shown)
    if value >= 1.0:
        return 1.0 - shaping.structure - shaping.penalty
    return max(value, shaping.answered * was_answered) - shaping.penalty
