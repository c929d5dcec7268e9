"""N cases over all parsers, as a table; exit code 1 on a finding.

python -m tests.fuzz [--cases N] [--seed S] [--only NAME]
"""

from __future__ import annotations

import argparse
import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["ONLINEVPO_TRACKING"] = "off"


def main() -> int:
    asked = argparse.ArgumentParser(prog="python -m tests.fuzz")
    asked.add_argument("--cases", type=int, default=22_000)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--only", default="")
    given = asked.parse_args()
    import torch

    from tests.fuzz.harness import run, table
    from tests.fuzz.parsers import parsers

    torch.set_num_threads(1)
    chosen = [one for one in parsers() if given.only in one.name]
    each = given.cases / sum(one.share for one in chosen)
    outcomes = [run(one, max(1, round(each * one.share)), given.seed) for one in chosen]
    print(table(outcomes))
    return int(any(one.findings for one in outcomes))


if __name__ == "__main__":
    sys.exit(main())
