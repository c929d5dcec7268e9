"""python -m components.corpus run --out artifacts/corpus"""

from __future__ import annotations

from components.corpus.params import CorpusParams
from components.runtime.step import main, step_app

app = step_app(
    "corpus",
    CorpusParams,
    "components.corpus.step:run",
    help="Gather pristine clips and prompts, split by content.",
)

if __name__ == "__main__":
    main(app)
