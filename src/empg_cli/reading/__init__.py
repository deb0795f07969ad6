"""Files that may hold anything: what they mean, or a `DataError` that names file and place."""
