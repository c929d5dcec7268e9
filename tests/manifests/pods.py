"""Runs the very containers that the manifests describe: same command, arguments, environment.

Only places are replaced: addresses, ports and folders that a cluster would give the pod.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.manifests.rendering import Object, containers, named, pod_templates

#: What secrets/create would make; long enough for MLflow's rule for passwords.
SECRETS = {
    "onlinevpo-s3": {"access-key": "access0123", "secret-key": "secret4567"},
    "onlinevpo-postgres": {"password": "database0123456789"},
    "onlinevpo-mlflow": {"username": "pipeline", "password": "pipeline0123456789"},
    "onlinevpo-mlflow-server": {"admin-password": "admin0123456789", "session-key": "session0123456789"},
}


@dataclass
class Pod:
    """The pod that an overlay's object describes, as it would run here.

    Attributes:
        objects: the overlay.
        kind: of the object.
        name: of the object.
        places: what to write instead of a place in the cluster.
        folder: where its containers start, and their output goes to.
    """

    objects: list[Object]
    kind: str
    name: str
    places: Mapping[str, str]
    folder: Path

    @property
    def log(self) -> Path:
        """What its containers printed."""
        return self.folder / "log"

    @property
    def template(self) -> Object:
        """The pod's template."""
        (found,) = pod_templates(named(self.objects, self.kind, self.name))
        return found

    def container(self, name: str) -> Object:
        """The container of that name."""
        (found,) = [c for c in containers(self.template) if c["name"] == name]
        return found

    def volume(self, name: str) -> Object:
        """The volume of that name."""
        (found,) = [v for v in self.template["spec"]["volumes"] if v["name"] == name]
        return dict(found)

    def environment(self, name: str) -> dict[str, str]:
        """The environment of a container: nothing of this process's but where programs are."""
        found: dict[str, str] = {}
        for entry in self.container(name).get("env", []):
            source = entry.get("valueFrom", {})
            if "secretKeyRef" in source:
                value = SECRETS[source["secretKeyRef"]["name"]][source["secretKeyRef"]["key"]]
            elif "configMapKeyRef" in source:
                reference = source["configMapKeyRef"]
                value = self.placed(
                    named(self.objects, "ConfigMap", reference["name"])["data"][reference["key"]]
                )
            else:
                value = self.placed(expanded(entry["value"], found))
            found[entry["name"]] = value
        programs = f"{Path(sys.executable).parent}{os.pathsep}/usr/bin:/bin"
        return {"PATH": programs, "OMP_NUM_THREADS": "1", **found}

    def command(self, words: list[str], name: str) -> list[str]:
        """A command of a container, as Kubernetes expands it."""
        environment = self.environment(name)
        return [self.placed(expanded(word, environment)) for word in words]

    def run(self, name: str, **changed: str) -> str:
        """Run a container to its end, some of its environment changed; what it printed.

        Raises:
            subprocess.CalledProcessError: if it fails.
        """
        environment = {**self.environment(name), **changed}
        done = subprocess.run(
            self._whole(name), env=environment, cwd=self.folder, capture_output=True, text=True
        )
        with self.log.open("a") as log:
            log.write(done.stdout + done.stderr)
        done.check_returncode()
        return done.stdout

    @contextmanager
    def running(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        """A container that serves, until the block ends."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                self._whole(name), env=self.environment(name), cwd=self.folder, stdout=log, stderr=log
            )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=10)

    def probe(
        self, name: str, kind: str = "readinessProbe", **changed: str
    ) -> subprocess.CompletedProcess[str]:
        """What the kubelet gets when it runs a probe of a container, some of its environment changed."""
        words = self.command(self.container(name)[kind]["exec"]["command"], name)
        environment = {**self.environment(name), **changed}
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=30)

    def placed(self, text: str) -> str:
        """`text` with the places of the cluster replaced by those here."""
        for there in sorted(self.places, key=len, reverse=True):
            text = text.replace(there, self.places[there])
        return text

    def _whole(self, name: str) -> list[str]:
        container = self.container(name)
        return self.command([*container["command"], *container.get("args", [])], name)


def expanded(text: str, environment: Mapping[str, str]) -> str:
    """`$(NAME)` replaced by the variable where there is one, as Kubernetes does."""
    return re.sub(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)", lambda m: environment.get(m[1], m[0]), text)
