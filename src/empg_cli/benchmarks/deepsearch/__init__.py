"""Deep Search: multi-turn search agents, offline on a generated world by default, real engines when wanted."""
