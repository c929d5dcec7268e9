"""Calls to the MLflow registry: patient with a busy store, one line of error where it does not answer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from components.runtime.errors import InputError
from components.runtime.tracking import connect, tracking_uri, without_password

T = TypeVar("T")
PREFIX = "onlinevpo."
#: MLflow's oldest databases store at most 5,000 characters of a version's tag.
TAG_CAP = 4500
#: Seconds that a call is tried again while the store says that it is busy.
PATIENCE_S = 60.0
_BUSY = ("TEMPORARILY_UNAVAILABLE", "RESOURCE_EXHAUSTED")
_BUSY_WORDS = ("database is locked", "Model Version creation error", "database table is locked")


def client() -> Any:
    """An MLflow client of the registry that the environment names.

    Raises:
        InputError: the registry is a folder of files, which cannot order two promotions, or is out of reach.
    """
    uri = os.environ.get("MLFLOW_REGISTRY_URI") or tracking_uri()
    if "://" not in uri or uri.startswith("file:"):
        raise InputError(
            f"model registry at {without_password(uri)}: a folder of files cannot order two promotions; "
            "allowed: a server (http://...) or a database (sqlite:///mlflow.db)"
        )
    # A bar for every file of a few kilobytes would drown what the commands have to say.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with reachable():
        return connect().MlflowClient()


def call(act: Callable[[], T], what: str = "") -> T:
    """Do a call that may be repeated, again while the store is busy.

    Raises:
        InputError: the registry cannot be reached, or refuses.
    """
    from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

    again = Retrying(
        retry=retry_if_exception(is_busy),
        stop=stop_after_delay(PATIENCE_S),
        wait=wait_random_exponential(0.05, max=1.0),
        reraise=True,
    )
    with reachable(what):
        return again(act)


def is_busy(error: BaseException) -> bool:
    """Whether an error only says that others are writing to the store."""
    from mlflow.exceptions import MlflowException

    code = error.error_code if isinstance(error, MlflowException) else ""
    return code in _BUSY or any(words in str(error) for words in _BUSY_WORDS)


@contextmanager
def reachable(what: str = "") -> Iterator[None]:
    """Turn MLflow's failures into one line that names the registry."""
    import requests
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, requests.RequestException, SQLAlchemyError) as error:
        text = without_password(" ".join(str(error).split()))[:300]
        where = without_password(tracking_uri())
        raise InputError(f"model registry at {where}: {f'{what}: ' if what else ''}{text}") from error
