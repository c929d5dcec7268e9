"""The MLflow client: where the server is, the database's tables, the experiment, a pipeline's parent run."""

from __future__ import annotations

import logging
import os
import re
import socket
import sqlite3
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from components.runtime.errors import InputError
from components.runtime.io.files import file_lock

DATABASE = "mlflow.db"
DEFAULT_URI = f"sqlite:///{DATABASE}"
EXPERIMENT = "onlinevpo"
PIPELINE_TAG = "onlinevpo.pipeline"
_ANSWER_S = 10.0
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def tracking_uri() -> str:
    """Where tracking and the model registry are: MLFLOW_TRACKING_URI or a database in the current folder.

    `dvc exp run --temp` and `--queue` run in a temporary folder, which vanishes: there the database is that
    of the project, which DVC names in DVC_ROOT.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    root = _project_of_experiment()
    return uri or (DEFAULT_URI if root is None else f"sqlite:///{root / DATABASE}")


def _project_of_experiment() -> Path | None:
    """The project's folder, where this process runs in the temporary copy of a DVC experiment; else None."""
    root, here = os.environ.get("DVC_ROOT"), Path.cwd()
    if not root or not here.is_relative_to(Path(root).resolve() / ".dvc" / "tmp"):
        return None
    return Path(root).resolve()


def without_password(text: str) -> str:
    """`text` without the passwords of MLflow's URIs in the environment, or of any other URI in it.

    The values in a URI's query go, too: drivers take passwords and keys there.
    """
    for uri in (tracking_uri(), os.environ.get("MLFLOW_REGISTRY_URI") or ""):
        account, at, _ = uri.partition("://")[2].rpartition("@")
        user, colon, _ = account.partition(":")
        if at and colon:
            text = text.replace(f"{account}@", f"{user}@")
    text = re.sub(r"(://[^\s/:@]*):[^\s/@]+@", r"\1@", text)
    query = re.compile(r"(?<=://)([^\s?'\"]*)\?([^\s'\"]*)")
    return query.sub(lambda uri: f"{uri[1]}?{re.sub(r'=[^&]+', '=***', uri[2])}", text)


def database_file(uri: str) -> Path | None:
    """The file of a SQLite URI; None for any other."""
    if not uri.startswith("sqlite:"):
        return None
    from sqlalchemy.engine import make_url

    database = make_url(uri).database
    return Path(database).absolute() if database and database != ":memory:" else None


def check_uri(uri: str, what: str) -> None:
    """Refuse a URI that MLflow would take for something else, or could not open.

    Args:
        uri: of the tracking server or the model registry.
        what: which of them, for the error.

    Raises:
        InputError: no URI, no scheme, a kind that is not supported, a database without its driver, or one
            whose server does not answer.
    """
    shown = without_password(uri)
    allowed = "allowed: a server (http://...) or a database (sqlite:///mlflow.db, postgresql://...)"
    try:
        urlsplit(uri)
    except ValueError as error:
        raise InputError(f"{what} at {shown}: not a URI: {error}; {allowed}") from None
    if re.fullmatch(r"(localhost|[\w-]+(\.[\w-]+)*):\d+(/.*)?", uri):
        raise InputError(f"{what} at {shown}: no scheme; did you mean http://{shown}?")
    if uri.split(":")[0] in ("databricks", "databricks-uc", "uc"):
        raise InputError(f"{what} at {shown}: Databricks is not supported; {allowed}")
    if not uri.startswith(("postgresql", "mysql", "mssql")):
        return
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    try:
        url = make_url(uri)
        url.get_dialect().import_dbapi()
    except ImportError as error:
        driver = error.name or str(error)
        package = {"psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}.get(driver, driver)
        raise InputError(
            f"{what} at {shown}: the database's driver is not installed: pip install {package}"
        ) from error
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise InputError(f"{what} at {shown}: not a database's URI; {allowed}") from error
    port = url.port or _PORTS[url.get_backend_name()]
    try:
        if url.host:  # MLflow tries for minutes before it says that nobody answers
            socket.create_connection((url.host, port), timeout=_ANSWER_S).close()
    except OSError as error:
        raise InputError(f"{what} at {shown}: {url.host}:{port} does not answer: {error}") from error


def connect(uri: str | None = None) -> Any:
    """The `mlflow` module, quiet and pointed at `uri`, else `tracking_uri()`; its import takes seconds.

    Raises:
        InputError: the URI is of a kind that cannot be used, or names a database file in a place where none
            can be.
    """
    uri = uri or tracking_uri()
    check_uri(uri, "tracking")
    _check_place(uri)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # It prints links to a finished run, with the tracking URI's password in them.
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    # MLflow's own defaults keep an unreachable server's client waiting for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    for noisy in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    import mlflow

    logging.getLogger("alembic.runtime.migration").setLevel(logging.WARNING)
    if mlflow.get_tracking_uri() != uri:
        mlflow.set_tracking_uri(uri)
    if database_file(uri) is not None:
        with alone_with(uri):
            mlflow.MlflowClient().search_experiments(max_results=1)  # makes the tables where there are none
    return mlflow


def _check_place(uri: str) -> None:
    """Refuse a SQLite file that cannot be opened at once; MLflow tries for two minutes before it says so."""
    file = database_file(uri)
    if file is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        sqlite3.connect(file).close()
    except (OSError, sqlite3.Error) as error:
        raise InputError(f"{uri}: no database can be kept there: {error}") from error


def alone_with(uri: str) -> AbstractContextManager[None]:
    """Hold others off a SQLite URI for the block: two processes that make a database's tables both fail."""
    file = database_file(uri)
    return nullcontext() if file is None else file_lock(file.with_name(f".{file.name}.lock"))


def experiment_id(client: Any) -> str:
    """Id of the experiment that MLFLOW_EXPERIMENT_ID or _NAME names, made where there is none of the name.

    Raises:
        InputError: the experiment is deleted, or there is none of that id.
    """
    from mlflow.exceptions import MlflowException

    number = os.environ.get("MLFLOW_EXPERIMENT_ID")
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    experiment = client.get_experiment(number) if number else client.get_experiment_by_name(name)
    if experiment is None:
        try:
            # MLflow would keep the files below the current folder, which vanishes with a DVC experiment.
            root = _project_of_experiment()
            ours = root is not None and database_file(tracking_uri()) == root / DATABASE
            files = str(root / "mlruns" / name) if root is not None and ours else None
            return str(client.create_experiment(name, artifact_location=files))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        experiment = client.get_experiment_by_name(name)  # another process made it in between
    if experiment.lifecycle_stage != "active":
        raise InputError(
            f"experiment {experiment.name} ({experiment.experiment_id}) is deleted: bring it back with "
            f"`mlflow experiments restore -x {experiment.experiment_id}`, or set MLFLOW_EXPERIMENT_NAME to "
            "another"
        )
    return str(experiment.experiment_id)


def parent_run(client: Any, experiment: str, pipeline: str) -> str:
    """Id of the run that stands for a pipeline run, made where there is none.

    A store numbers no runs, so processes that start together may each make one. All of them then take the
    oldest, by start and id, and whoever made another deletes it.

    Raises:
        InputError: the name holds a quote, for which a filter expression knows no escape.
    """
    if "'" in pipeline:
        raise InputError(f"the pipeline run's name {pipeline!r} must not hold a quote")

    def oldest() -> str | None:
        runs = client.search_runs([experiment], f"tags.`{PIPELINE_TAG}` = '{pipeline}'")
        ids = sorted((run.info.start_time, run.info.run_id) for run in runs)
        return str(ids[0][1]) if ids else None

    there = oldest()
    if there is not None:
        return there
    made = client.create_run(experiment, run_name=pipeline, tags={PIPELINE_TAG: pipeline}).info.run_id
    first = oldest() or str(made)
    if first != made:
        client.delete_run(made)
    return first
