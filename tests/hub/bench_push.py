"""How long a push takes: ``python -m tests.hub.bench_push RUN``, to a stand-in on this machine.

Everything counts that a person waits for: gathering the files, drawing grid and curve, every request, the
commit to a new repository.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import huggingface_hub.constants as hub_constants

from rsm_app.hub.bundle import bundle
from rsm_app.hub.push import Push
from rsm_app.hub.sign_in import Token
from tests.hub.stand_in import StandIn

REPEATS = 5


def main() -> None:
    run = Path(sys.argv[1])
    hub_constants.HF_HUB_OFFLINE = False
    gathered = bundle(run, "ann/bench")
    with tempfile.TemporaryDirectory() as place:
        hub = StandIn(Path(place))
        seconds = []
        for number in range(REPEATS):
            began = time.perf_counter()
            Push(run, f"ann/bench-{number}", Token("hf_annWrites"), endpoint=hub.url).run()
            seconds.append(time.perf_counter() - began)
            for stored in (Path(place) / "objects").iterdir():
                stored.unlink()  # so that the next push sends everything again
        hub.close()
    print(f"{len(gathered.files)} files, {gathered.size / 1e6:.2f} MB; pushes took")
    print(", ".join(f"{s:.2f}" for s in seconds), f"s; median {statistics.median(seconds):.2f} s")


if __name__ == "__main__":
    main()
