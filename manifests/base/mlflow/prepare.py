"""What MLflow's database needs before the server starts: today's schema, and users as in the secrets.

Runs as an init container, so that several server workers never migrate at once and a password changed in a
secret takes effect with the next restart (the server itself reads the administrator's only once, ever).

Environment: MLFLOW_BACKEND_STORE_URI and MLFLOW_AUTH_CONFIG_PATH as for the server;
MLFLOW_AUTH_ADMIN_USERNAME and MLFLOW_AUTH_ADMIN_PASSWORD; MLFLOW_TRACKING_USERNAME and
MLFLOW_TRACKING_PASSWORD of the pipeline's user.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_LOCK = 5_071_200_215  # any number, as long as every replica takes the same


def main() -> None:
    """Migrate both schemas, then make or update the two users."""
    uri = _required("MLFLOW_BACKEND_STORE_URI")
    accounts = {
        _required("MLFLOW_AUTH_ADMIN_USERNAME"): (_required("MLFLOW_AUTH_ADMIN_PASSWORD"), True),
        _required("MLFLOW_TRACKING_USERNAME"): (_required("MLFLOW_TRACKING_PASSWORD"), False),
    }
    if len(accounts) < 2:
        sys.exit("MLFLOW_TRACKING_USERNAME is the administrator's name; the pipeline's user must be another")
    # Imported only now, which takes seconds: what is missing above is said at once.
    from mlflow.db import upgrade
    from mlflow.server.auth.config import read_auth_config
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

    with _alone(uri):
        assert upgrade.callback is not None
        upgrade.callback(uri)
        store = SqlAlchemyStore()
        store.init_db(read_auth_config().database_uri)
        for name, (password, admin) in accounts.items():
            if not store.has_user(name):
                store.create_user(name, password, is_admin=admin)
                print(f"user {name}: made")
            elif not store.authenticate_user(name, password):
                store.update_user(name, password=password)
                print(f"user {name}: password changed")


@contextmanager
def _alone(uri: str) -> Iterator[None]:
    """Holds a lock in the database, so that of several replicas one prepares it and the others wait."""
    from mlflow.store.db.utils import create_sqlalchemy_engine_with_retry
    from sqlalchemy import text

    engine = create_sqlalchemy_engine_with_retry(uri)
    if engine.dialect.name != "postgresql":
        yield
        return
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _LOCK})
        try:
            yield
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})


def _required(name: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        sys.exit(
            f"{name} is not set or empty; look at the secrets onlinevpo-mlflow and onlinevpo-mlflow-server"
        )
    return value


if __name__ == "__main__":
    main()
