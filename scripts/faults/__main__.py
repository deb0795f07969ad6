"""`python -m scripts.faults`; what runs in processes of its own must live in a module that these can import."""

from __future__ import annotations

import sys

from scripts.faults.run import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
