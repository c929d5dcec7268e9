"""What is taken for a credential."""

from __future__ import annotations

import pytest

from pipelines.lint.secret_scan import is_credential, suspicions


@pytest.mark.parametrize(
    ("name", "value", "credential"),
    [
        ("AWS_SECRET_ACCESS_KEY", "x", True),
        ("MLFLOW_TRACKING_PASSWORD", "x", True),
        ("hub-token", "x", True),
        ("apiKey", "x", True),
        ("secret_key", "", False),
        ("MLFLOW_TRACKING_TOKEN_FILE", "/var/run/token", False),
        ("password", "{{$.inputs.parameters['p']}}", False),
        ("tokenizer", "t5", False),
        ("max_tokens", "512", False),
        ("secret_name", "onlinevpo-s3", False),
        ("key", "x", False),
    ],
)
def test_names_of_credentials(name: str, value: str, credential: bool) -> None:
    assert is_credential(name, value) is credential


@pytest.mark.parametrize(
    ("text", "suspected"),
    [
        ("ghp_" + "a" * 36, True),
        ("eyJhbGciOiJI." + "eyJzdWIiOiIxMjM0." + "SflKxwRJSMeKKF2QT4", True),
        ("-----BEGIN RSA " + "PRIVATE KEY-----", True),
        ("Authorization: Bearer " + "abcdefghijklmnop1234", True),
        ('{"a": [{"password": "x"}]}', True),
        ('{"tokenizer": "t5", "tokens": 3, "password": ""}', False),
        ('{"secrets": [{"name": "s3", "env": {"AWS_SECRET_ACCESS_KEY": "secret-key"}}]}', False),
        ("registry.example/onlinevpo-model@sha256:" + "a" * 64, False),
        ("s3://bucket/corpus", False),
        ("https://registry.example:5000/x@y", False),
        ("{not json", False),
    ],
)
def test_what_looks_like_a_credential(text: str, suspected: bool) -> None:
    assert bool(list(suspicions(text))) is suspected
