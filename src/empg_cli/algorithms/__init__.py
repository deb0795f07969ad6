"""The mathematics: pure functions of tensors, one concept a module. `assemble` is the only one that knows settings."""
