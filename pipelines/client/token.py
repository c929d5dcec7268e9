"""The bearer token that a Kubeflow Pipelines server is shown: read from a file, never printed."""

from __future__ import annotations

import os
import re
from pathlib import Path

from components.runtime.errors import InputError

#: The variable and the place that kfp's own client reads, so that one pod's settings serve both.
TOKEN_VARIABLE = "KF_PIPELINES_SA_TOKEN_PATH"
POD_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")


class Token:
    """A bearer token in a file, read anew for each request because a kubelet renews it in place.

    Args:
        file: the file.
        source: how a person would name it, for messages.
    """

    def __init__(self, file: Path, source: str) -> None:
        self.file, self.source = file, source
        self._known: list[str] = []

    def read(self) -> str:
        """The token; the one before while the file is just being rewritten.

        Raises:
            InputError: if the file never held one, or holds something that cannot be one.
        """
        try:
            text = self.file.read_text(encoding="ascii").strip()
            trouble = "" if text else "is empty; it must hold a bearer token"
        except OSError as error:
            text, trouble = "", str(error.strerror or error)
        except UnicodeDecodeError:
            text, trouble = "", "is not text; it must hold a bearer token"
        if not trouble and not re.fullmatch(r"[!-~]+", text):
            # Checked here, because the HTTP library would quote the whole header in its error.
            trouble = "holds more than one word; it must hold a bearer token and nothing else"
        if trouble:
            if self._known:
                return self._known[-1]
            raise InputError(f"{self.source}: {trouble}")
        if text not in self._known:
            self._known.append(text)
        return text

    def redacted(self, text: str) -> str:
        """`text` without any token that was ever read here."""
        for known in self._known:
            text = text.replace(known, "***")
        return text


def find_token(file: Path | None) -> Token | None:
    """The token in `file`, else in the file that TOKEN_VARIABLE names, else the pod's own, if any."""
    if file is not None:
        return Token(file, f"--token-file {file}")
    named = os.environ.get(TOKEN_VARIABLE)
    if named:
        return Token(Path(named), f"{TOKEN_VARIABLE}={named}")
    return Token(POD_TOKEN, f"the pod's token {POD_TOKEN}") if POD_TOKEN.exists() else None
