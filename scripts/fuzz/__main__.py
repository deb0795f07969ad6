"""`python -m scripts.fuzz`; targets run in processes of their own, which import this package."""

from __future__ import annotations

import sys

from scripts.fuzz.run import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
