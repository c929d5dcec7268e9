"""What MLflow runs to load a version of the reward; the project itself must be installed."""

import mlflow

from components.reward.scoring.pyfunc import RewardModel

mlflow.models.set_model(RewardModel())
