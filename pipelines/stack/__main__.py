"""python -m pipelines.stack up | status | down"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from components.runtime.step import command_app, main

app = command_app("MLflow's server and an S3 server on this machine.")
Folder = Annotated[Path, typer.Option("--folder", help="where everything it keeps lies")]
DEFAULT = Path(".stack")


@app.command()
def up(folder: Folder = DEFAULT) -> None:
    """Start both servers, on first use with new credentials, and wait until they answer."""
    from pipelines.stack.secrets import BUCKET, CLIENT, SERVER
    from pipelines.stack.servers import up as start

    client = start(folder)
    print(f"MLflow: {client['MLFLOW_TRACKING_URI']}  (user {client['MLFLOW_TRACKING_USERNAME']})")
    print(f"S3:     {client['AWS_ENDPOINT_URL_S3']}  (bucket {BUCKET})")
    print(f"credentials: {folder / CLIENT}, the administrator's: {folder / SERVER}")
    print(f"in a shell: set -a; . {folder / CLIENT}; set +a")


@app.command()
def status(folder: Folder = DEFAULT) -> int:
    """Say which server runs; exit 0 only if both do."""
    from pipelines.stack.servers import status as look

    found = look(folder)
    for name, runs in found.items():
        print(f"{name}: {'running' if runs else 'not running'}")
    return 0 if all(found.values()) else 1


@app.command()
def down(folder: Folder = DEFAULT) -> None:
    """Stop both servers; runs, models and artifacts stay."""
    from pipelines.stack.servers import down as stop

    stopped = stop(folder)
    print(f"stopped: {', '.join(stopped) or 'nothing was running'}; {folder} keeps what they hold")


if __name__ == "__main__":
    main(app)
