"""What a run will need, known before it is spent: memory by phase, disk, time, against the hardware. No torch."""
