"""Calls to the MLflow registry: patient with a busy store, one line of error where it does not answer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from components.runtime.errors import InputError, one_line
from components.runtime.tracking.mlflow_client import (
    alone_with,
    check_uri,
    connect,
    database_file,
    tracking_uri,
    without_password,
)

T = TypeVar("T")
PREFIX = "onlinevpo."
#: MLflow's oldest databases store at most 5,000 characters of a version's tag.
TAG_CAP = 4500
#: Seconds that a call is tried again while the store says that it is busy.
PATIENCE_S = 60.0
_BUSY = ("TEMPORARILY_UNAVAILABLE", "RESOURCE_EXHAUSTED")
_BUSY_WORDS = ("database is locked", "Model Version creation error", "database table is locked")


def client(create: bool = False) -> Any:
    """An MLflow client of the registry that the environment names.

    Args:
        create: make the database where there is none.

    Raises:
        InputError: the registry is a folder of files, which cannot order two promotions, or is of a kind that
            cannot be used, or has no database yet, or is out of reach.
    """
    uri = registry_uri()
    check_uri(uri, "model registry")
    if "://" not in uri or uri.startswith("file:"):
        raise InputError(
            f"model registry at {place()}: a folder of files cannot order two promotions; "
            "allowed: a server (http://...) or a database (sqlite:///mlflow.db)"
        )
    file = database_file(uri)
    if file is not None and not create and not file.is_file():
        raise InputError(
            f"model registry at {place()}: there is no such database, so nothing is registered there; a run "
            "makes it; for another registry set MLFLOW_TRACKING_URI (for `make stack`: . ./.stack/env)"
        )
    # A bar for every file of a few kilobytes would drown what the commands have to say.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with reachable():
        tracked = database_file(tracking_uri())
        # Where tracking has no database yet, looking at the registry makes none.
        mlflow = connect(uri if tracked is not None and not create and not tracked.is_file() else None)
        if mlflow.get_registry_uri() != uri:
            mlflow.set_registry_uri(uri)
        made = mlflow.MlflowClient()
        if file is not None:
            with alone_with(uri):
                made.search_registered_models(max_results=1)
        return made


def registry_uri() -> str:
    """Where the model registry is: MLFLOW_REGISTRY_URI, else where tracking is."""
    return os.environ.get("MLFLOW_REGISTRY_URI") or tracking_uri()


def place() -> str:
    """The registry as messages name it: no password, and a database file in full."""
    uri = registry_uri()
    file = database_file(uri)
    return without_password(uri) if file is None else f"sqlite:///{file}"


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


def is_absent(error: BaseException | None) -> bool:
    """Whether an error says that what was asked for is not there, rather than that nobody answered."""
    if getattr(error, "error_code", "") in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"):
        return True
    answer = getattr(error, "response", None)
    if isinstance(answer, dict):  # of an S3 store
        return str(answer.get("Error", {}).get("Code")) in ("404", "NoSuchKey", "NotFound")
    return getattr(answer, "status_code", None) == 404


@contextmanager
def reachable(what: str = "") -> Iterator[None]:
    """Turn MLflow's failures into one line that names the registry."""
    import requests
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    stores = (MlflowException, requests.RequestException, SQLAlchemyError)
    try:
        yield
    except (*stores, Boto3Error, BotoCoreError, ClientError) as error:
        text = one_line(without_password(str(error)))
        raise InputError(f"model registry at {place()}: {f'{what}: ' if what else ''}{text}") from error
