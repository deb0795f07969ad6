"""empg: train, evaluate and compare language-model agents on long tasks."""

__version__ = "0.1.0"
