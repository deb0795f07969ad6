"""Analyses behind docs/studies: what a credit does to a policy in one step, whose share a gain is, numbers anew."""
