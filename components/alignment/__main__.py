"""python -m components.alignment run --corpus DIR --generator DIR --reward DIR --out artifacts/alignment"""

from __future__ import annotations

from components.alignment.params import AlignmentParams
from components.runtime.step import main, step_app

app = step_app(
    "alignment",
    AlignmentParams,
    "components.alignment.step:run",
    inputs=("corpus", "generator", "reward"),
    help="Align the generator to the reward by online DPO.",
)

if __name__ == "__main__":
    main(app)
