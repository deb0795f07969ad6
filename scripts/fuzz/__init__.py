"""Readers and parsers on inputs that nobody would write (`make fuzz`, docs/reliability.md)."""
