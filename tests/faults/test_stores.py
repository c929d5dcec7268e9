"""A real S3 server behind a proxy that does harm: what reading and writing make of it, and how soon."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from components.runtime.artifacts.artifact import METRICS, open_artifact
from components.runtime.artifacts.publish import publish
from components.runtime.errors import InputError
from components.runtime.io import s3
from components.runtime.params import StepParams
from tests.faults.proxy import Fault, Proxy, proxied
from tests.s3 import Store

OUT = "s3://bucket/runs/made"
FOREVER = 10**6


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """The block must end in time."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


@pytest.fixture
def proxy(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with proxied(store.endpoint) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", running.url)
        yield running
    s3._make_client.cache_clear()


def make(out: str | Path = OUT) -> None:
    with publish(out, step="corpus", params=StepParams()) as workspace:
        (workspace.dir / "clips.bin").write_bytes(bytes(range(256)) * 400)
        workspace.write_metrics({"figure": 1.0})


def fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Open the artifact with an empty cache."""
    monkeypatch.setenv("ONLINEVPO_CACHE", str(tmp_path / "another cache"))
    return open_artifact(OUT, step="corpus").metrics()


@pytest.mark.parametrize("status", [500, 503])
def test_a_store_that_fails_twice_costs_only_time(
    status: int, proxy: Proxy, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with within(60):
        proxy.first(2, Fault(status=status), "PUT")
        make()
        proxy.first(2, Fault(status=status), "GET")
        assert fetch(tmp_path, monkeypatch) == {"figure": 1.0}


@pytest.mark.parametrize("status", [500, 503])
def test_a_store_that_goes_on_failing_is_one_line_and_no_half_artifact(
    status: int, proxy: Proxy, store: Store
) -> None:
    proxy.first(FOREVER, Fault(status=status), "PUT", "clips.bin")
    with within(60), pytest.raises(InputError, match=rf"clips\.bin.*({status}|reached max retries)"):
        make()
    assert "made/manifest.json" not in store.files()
    proxy.first(0, Fault())
    make()
    assert "made/manifest.json" in store.files()


def test_a_download_cut_in_the_middle_is_begun_again(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    proxy.first(1, Fault(cut=1000), "GET", "clips.bin")
    with within(30):
        assert fetch(tmp_path, monkeypatch) == {"figure": 1.0}


def test_downloads_that_are_always_cut_leave_nothing_in_the_cache(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    proxy.first(FOREVER, Fault(cut=1000), "GET", "clips.bin")
    with within(60), pytest.raises(InputError, match=r"clips\.bin"):
        fetch(tmp_path, monkeypatch)
    assert not [path for path in (tmp_path / "another cache").rglob("*") if path.is_file()]


def test_an_upload_whose_connection_is_closed_is_begun_again(proxy: Proxy, store: Store) -> None:
    proxy.first(1, Fault(refuse=True), "PUT", "clips.bin")
    with within(30):
        make()
    assert (store.folder / "bucket" / "runs" / "made" / "clips.bin").stat().st_size == 256 * 400


def test_a_byte_turned_on_the_way_is_found(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    proxy.first(FOREVER, Fault(flip=70_000), "GET", "clips.bin")
    with within(30), pytest.raises(InputError, match=r"clips\.bin.*(damaged|altered)"):
        fetch(tmp_path, monkeypatch)


def test_a_store_that_kept_less_than_was_sent_is_found(proxy: Proxy, store: Store) -> None:
    proxy.first(FOREVER, Fault(length=17), "HEAD", "clips.bin")
    with within(30), pytest.raises(InputError, match="the store kept 17 bytes of 102400"):
        make()
    assert "made/manifest.json" not in store.files()


def test_a_slow_store_is_waited_for(proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make()
    proxy.first(FOREVER, Fault(wait=0.5))
    with within(30):
        assert fetch(tmp_path, monkeypatch) == {"figure": 1.0}


@pytest.mark.slow
def test_a_store_that_never_answers_is_given_up(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    make()
    monkeypatch.setattr(s3, "READ_S", 0.5)
    s3._make_client.cache_clear()
    proxy.first(FOREVER, Fault(wait=3.0))
    with within(60), pytest.raises(InputError, match="cannot reach the store"):
        open_artifact(OUT)


def test_wrong_credentials_are_told_before_the_work(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-and-not-shown")
    with within(30), pytest.raises(InputError, match="access denied") as told:
        make()
    assert "wrong-and-not-shown" not in str(told.value)


def test_a_bucket_that_vanishes_during_the_work(proxy: Proxy, store: Store) -> None:
    def work() -> None:
        with publish(OUT, step="corpus", params=StepParams()) as workspace:
            workspace.write_metrics({"figure": 1.0})
            # Said by the proxy: rclone makes a bucket that is not there.
            proxy.first(FOREVER, Fault(status=404))

    with within(60), pytest.raises(InputError, match="nothing there"):
        work()
    proxy.first(0, Fault())
    make()
    assert "made/manifest.json" in store.files()


def test_an_object_that_vanishes_after_it_was_listed(
    proxy: Proxy, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    proxy.first(FOREVER, Fault(status=404), "GET", METRICS)
    with within(30), pytest.raises(InputError, match=METRICS):
        fetch(tmp_path, monkeypatch)
