"""Services over HTTP, for search, judges and endpoints: calls that are retried and bounded, keys, kept answers."""
