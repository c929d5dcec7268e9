"""The code of a reward's MLflow model: MLflow runs this file when it loads the model.

In: paths or URIs of videos, as a list or as a DataFrame with a column `path` and, for rewards that read text,
a column `prompt`. Out: a DataFrame with a row for each, in order: `path`, `score`, `uncertainty`, a column
`aspect_<name>` for each aspect, and `error`, None or the one line that says why the file has no score.
"""

from __future__ import annotations

import math
import os
from typing import Any

import mlflow
import pandas as pd
import torch
from mlflow.pyfunc import PythonModel

from components.reward.scoring.load import open_reward
from components.reward.scoring.videos import Source, score_files
from components.runtime.compute.devices import configure_threads
from components.runtime.errors import InputError


class RewardModel(PythonModel):
    """Scores video files; ONLINEVPO_DEVICE chooses auto (the default), cpu or cuda."""

    def load_context(self, context: Any) -> None:
        """Open the reward that lies beside this file."""
        configure_threads()
        self.reward = open_reward(context.artifacts["reward"], os.environ.get("ONLINEVPO_DEVICE", "auto"))
        self.aspects = list(self.reward.rate(torch.zeros(0, 2, 3, 8, 8), 8.0).aspects)

    # A list comes as well; MLflow makes a schema of any other hint, and then refuses one of the two.
    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """A row for each path; a file that cannot be scored costs no other its score."""
        table = model_input
        if not isinstance(table, pd.DataFrame):
            table = pd.DataFrame({"path": list(model_input)})
        if "path" not in table.columns:
            raise InputError(f"no column `path`, which names the videos; there are {list(table.columns)}")
        files = [Source(str(path)) for path in table["path"]]
        prompts = None
        if "prompt" in table.columns and table["prompt"].notna().any():
            prompts = [text if isinstance(text, str) else "" for text in table["prompt"]]
        results = list(score_files(self.reward, files, prompts))
        columns: dict[str, Any] = {
            "path": [result.path for result in results],
            "score": [math.nan if result.score is None else result.score for result in results],
            "uncertainty": [
                math.nan if result.uncertainty is None else result.uncertainty for result in results
            ],
        }
        for name in self.aspects:
            columns[f"aspect_{name}"] = [result.aspects.get(name, math.nan) for result in results]
        columns["error"] = pd.Series([result.error for result in results], dtype=object)
        return pd.DataFrame(columns)


mlflow.models.set_model(RewardModel())
