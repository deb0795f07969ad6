"""Questions and corpora that others publish, in the file formats they come in."""
