"""``python -m trainers``: train, resume, list, evaluate and bench from a shell."""

import sys

from trainers.cli import main

if __name__ == "__main__":
    sys.exit(main())
