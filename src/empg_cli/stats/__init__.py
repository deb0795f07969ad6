"""Numbers only: intervals, paired tests, pass@k."""
