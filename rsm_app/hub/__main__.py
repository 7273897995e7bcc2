"""``python -m rsm_app.hub``: publish a run, or bring a published one back, from a shell."""

import sys

from rsm_app.hub.cli import main

if __name__ == "__main__":
    sys.exit(main())
