"""What MLflow runs to load a version of the generator; the project itself must be installed."""

import mlflow

from components.generator.serving import GeneratorModel

mlflow.models.set_model(GeneratorModel())
