"""Start RSM Studio: build the pages and serve them. Nothing else lives here."""

import argparse
import os

from rsm_app.jobs import places
from trainers.errors import InputError
from trainers.proxies import without_unusable_proxies
from trainers.terminal import prepare_output


def main() -> None:
    """Read the address from the command line or the environment and serve."""
    prepare_output()
    host = os.environ.get("GRADIO_SERVER_NAME") or ("0.0.0.0" if places.on_space() else "127.0.0.1")
    port = os.environ.get("PORT") or os.environ.get("GRADIO_SERVER_PORT") or "7860"
    parser = argparse.ArgumentParser(description="Serve RSM Studio, a page that fine-tunes image models.")
    parser.add_argument("--host", default=host, help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=port, help="port to listen on (default: %(default)s)")
    arguments = parser.parse_args()
    if not 1 <= arguments.port <= 65535:
        parser.error(f"The port must be between 1 and 65535, not {arguments.port}.")
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    # Gradio sums up the times of all events after every event, for a dashboard that is not served.
    os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000")

    try:
        places.settle()
        with without_unusable_proxies():
            from rsm_app.ui.shell import serve
        serve(arguments.host, arguments.port)
    except InputError as error:
        parser.exit(2, f"{error}\n")
    except OSError as error:
        parser.exit(1, f"Could not serve at {arguments.host}:{arguments.port}: {error} Try --port.\n")


if __name__ == "__main__":
    main()
