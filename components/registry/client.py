"""The MLflow client of the registry: every call is retried while the store is busy."""

from __future__ import annotations

from typing import Any

from components.runtime.errors import InputError
from components.runtime.tracking.retry import call, client


class RetryingClient:
    """An `mlflow.MlflowClient` whose methods are called through `components.runtime.tracking.retry.call`.

    Args:
        about: what the calls are about, for error lines.
        create: make the registry's database where there is none.

    Raises:
        InputError: (every method) the registry cannot be reached, or refuses.
    """

    def __init__(self, about: str, create: bool = False) -> None:
        self.raw = client(create)
        self._about = about

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.raw, name)
        return lambda *args, **kwargs: call(lambda: method(*args, **kwargs), self._about)

    def create_registered_model(self, name: str, description: str) -> None:
        """Create a registered model unless it exists."""
        try:
            call(lambda: self.raw.create_registered_model(name, description=description), self._about)
        except InputError as error:
            if error_code(error) != "RESOURCE_ALREADY_EXISTS":
                raise

    def search_all_versions(self, model: str) -> list[Any]:
        """Every version of a registered model, in no order."""
        page = self.search_model_versions(f"name='{model}'", 1000)
        versions = list(page)
        while page.token:
            page = self.search_model_versions(f"name='{model}'", 1000, page_token=page.token)
            versions += page
        return versions


def error_code(error: InputError) -> str:
    """MLflow's code of the error that a call ended with."""
    return str(getattr(error.__cause__, "error_code", ""))
