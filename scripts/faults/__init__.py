"""Faults planted around the real command line: what survived, what was lost (`make faults`, docs/reliability.md)."""
