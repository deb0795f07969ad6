"""Playing: episodes, engines that answer them, and the groups of an update."""
