"""A process that promotes on command: a line `<version> <moment>` in, a line `<outcome>` out.

    python -m tests.registry.promoter MODEL GATE

The moment is of time.monotonic(), which all processes of a machine share, so that several start together.
"""

from __future__ import annotations

import sys
import time

from components.registry.promote import Promotions
from components.registry.versions.store import RegisteredModel
from components.runtime.gate.thresholds import load_gate


def main(model: str, gate: str) -> None:
    promotions = Promotions(RegisteredModel(model), RegisteredModel(f"{model}-reward"))
    rules = load_gate(gate)
    print("ready", flush=True)
    for line in sys.stdin:
        version, moment = line.split()
        while time.monotonic() < float(moment):
            pass
        print(promotions.promote(version, rules).outcome, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
