"""Where the numbers of a run go: sinks, the dashboard, the final summary, and what every metric means."""
