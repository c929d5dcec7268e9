"""Whether MLflow answers what a training step would ask: exit 0, or 1 with the reason in one line.

`/health` says 200 while every real request is refused (wrong Host, wrong user, no database), so this asks the
API for an experiment, under the host name that clients use and as the user they are.

    probe.py http://127.0.0.1:5000

Environment: MLFLOW_TRACKING_URI, whose host is sent; MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import sys
from urllib.parse import urlsplit

REQUEST = "/api/2.0/mlflow/experiments/search?max_results=1"
TIMEOUT_S = 8.0


def failure(server: str) -> str | None:
    """Why the server at `server` would not serve a client, None if it would."""
    user = (
        f"{os.environ.get('MLFLOW_TRACKING_USERNAME', '')}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}"
    )
    headers = {
        "Host": urlsplit(os.environ["MLFLOW_TRACKING_URI"]).netloc,
        "Authorization": "Basic " + base64.b64encode(user.encode()).decode(),
    }
    address = urlsplit(server)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", REQUEST, headers=headers)
        answer = connection.getresponse()
        body = answer.read(65536)
        if answer.status != 200:
            said = " ".join(body.decode(errors="replace").split())[:200]
            return f"HTTP {answer.status} for Host {headers['Host']}: {said}"
        json.loads(body)
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    return None


if __name__ == "__main__":
    reason = failure(sys.argv[1])
    if reason:
        print(reason)
        sys.exit(1)
