"""The S3 client, and what its errors mean in one line.

Settings come from where every AWS tool reads them: the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL for any S3-compatible store, AWS_REGION, AWS_CA_BUNDLE,
AWS_MAX_ATTEMPTS), then ~/.aws/config and the profile in it that AWS_PROFILE names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from components.runtime.errors import InputError, one_line

MULTIPART_BYTES = 16 * 2**20
#: How long a store may take to answer, and between two pieces of an answer; five attempts are made.
CONNECT_S, READ_S = 10.0, 60.0
_DENIED = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "Forbidden", "ExpiredToken"}
_DENIED |= {"401", "403"}
MISSING = {"NoSuchKey", "NotFound", "404"}


def endpoint() -> str:
    """The S3 endpoint that the environment or the profile names, "" for AWS itself."""
    named = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if named:
        return named
    address = str(client().meta.endpoint_url)
    return "" if re.search(r"\.amazonaws\.com(\.cn)?$", address) else address


def client() -> Any:
    """The S3 client for the environment as it is now; made once per set of settings, it is slow to make."""
    return _make_client(tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_"))))


@lru_cache(maxsize=4)
def _make_client(settings: tuple[tuple[str, str], ...]) -> Any:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import ProfileNotFound

    try:
        session = boto3.session.Session()
        profile = session._session.get_scoped_config()
    except ProfileNotFound as error:
        raise InputError(f"AWS_PROFILE: {error}; it is looked for in ~/.aws/config") from error
    named = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None
    # AWS itself wants the bucket in the host's name; other stores have no such names, unless told otherwise.
    settings_of_s3 = profile.get("s3")
    style: Any = settings_of_s3.get("addressing_style") if isinstance(settings_of_s3, dict) else None
    if style is None:
        other = named or profile.get("endpoint_url") or profile.get("services")
        style = "path" if other else "auto"
    retries: Any = {"mode": "standard"}
    if not os.environ.get("AWS_MAX_ATTEMPTS"):
        retries["max_attempts"] = 5
    # S3-compatible stores do not all understand the newer trailing checksums; SHA-256 is checked here
    # instead.
    checksums = ("request_checksum_calculation", "response_checksum_validation")
    options: dict[str, Any] = {
        name: "when_required" for name in checksums if not os.environ.get(f"AWS_{name.upper()}")
    }
    addressing: Any = {"addressing_style": style}
    config = Config(
        signature_version="s3v4",
        s3=addressing,
        retries=retries,
        connect_timeout=CONNECT_S,
        read_timeout=READ_S,
        **options,
    )
    # boto3 itself knows AWS_DEFAULT_REGION and the profile's region, not AWS_REGION.
    region = os.environ.get("AWS_REGION") or session.region_name or "us-east-1"
    return session.client("s3", endpoint_url=named, region_name=region, config=config)


def transfer() -> Any:
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(
        multipart_threshold=MULTIPART_BYTES, multipart_chunksize=MULTIPART_BYTES, max_concurrency=4
    )


@contextmanager
def explained(uri: str | Path) -> Iterator[None]:
    """Turn what boto3 raises into one line that names the place and what to do."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        ConnectionError,
        HTTPClientError,
        NoCredentialsError,
        PartialCredentialsError,
        SSLError,
    )

    store = endpoint() or "AWS"
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        raise InputError(_reason(uri, code, str(error), store)) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise InputError(f"{uri}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from error
    except SSLError as error:
        bundle = os.environ.get("AWS_CA_BUNDLE")
        if bundle and not Path(bundle).is_file():
            raise InputError(
                f"AWS_CA_BUNDLE = {bundle}: no such file; it holds certificates in PEM"
            ) from error
        raise InputError(
            f"{uri}: the TLS certificate of the store at {store} is not accepted ({_why(error)}); for a "
            "store with one of its own, set AWS_CA_BUNDLE to the PEM file of the authority that signed it"
        ) from error
    except (ConnectionError, HTTPClientError) as error:
        raise InputError(f"{uri}: cannot reach the store at {store}; check AWS_ENDPOINT_URL_S3") from error
    except (BotoCoreError, Boto3Error, ValueError) as error:
        text = one_line(error)
        code = next((c for c in sorted(_DENIED | {"NoSuchBucket"}) if f"({c})" in text), "")
        raise InputError(_reason(uri, code, text, store)) from error


def _why(error: Exception) -> str:
    """What OpenSSL says is wrong with a certificate."""
    text = one_line(error)
    match = re.search(r"certificate verify failed: ([^(]+?) ?\(_ssl|\[SSL: [A-Z_]+\] ?([^(]+)", text)
    return (match[1] or match[2]).strip() if match else text


def _reason(uri: str | Path, code: str, text: str, store: str) -> str:
    if code in _DENIED:
        return f"{uri}: access denied by {store} ({code}); check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if code == "NoSuchBucket":
        return f"{uri}: no such bucket at {store}; create it first"
    if code in MISSING:
        return f"{uri}: nothing there ({code})"
    return f"{uri}: the store at {store} failed: {one_line(text)}"
