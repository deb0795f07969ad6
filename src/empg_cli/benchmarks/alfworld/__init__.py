"""ALFWorld: household tasks as text games, official or generated."""
