"""A generator's MLflow model: the clips of the generator itself, over a base whose bytes are checked."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from components.generator.families.base import ModelFamily
from components.generator.generator import Generator, load_family
from components.generator.params import SamplingParams
from components.generator.serving import GeneratorModel, check_base, located
from components.runtime.errors import InputError
from components.video.codec import read_video

PROMPT = "a red circle moving left slowly on a grey background"
SETTINGS = SamplingParams(steps=1, batch=2)


@pytest.fixture(scope="module")
def version(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a version holds of its generator: settings, base.json, a LoRA that changes something."""
    folder = tmp_path_factory.mktemp("version")
    base = repository / "models" / "miniature"
    files = {
        path.relative_to(base).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in base.rglob("*")
        if path.is_file() and path.name not in ("manifest.json", "metrics.json")
    }
    about = {"base": "models/miniature", "revision": None, "copy": None, "files": files}
    (folder / "base.json").write_text(json.dumps(about))
    (folder / "generator.json").write_text(SETTINGS.model_dump_json())
    _write_lora(load_family(base, torch.device("cpu")), folder / "lora")
    return folder


def _write_lora(family: ModelFamily, folder: Path) -> None:
    from peft import LoraConfig

    family.denoiser.add_adapter(LoraConfig(r=2, target_modules=list(family.lora_targets)), "default")
    generator = torch.Generator().manual_seed(0)
    for name, value in family.denoiser.named_parameters():
        if "lora_" in name:
            value.data = torch.randn(value.shape, generator=generator) * 0.2
    family.save_lora(folder, "default")


def loaded(version: Path, aligned: str) -> GeneratorModel:
    """The model as MLflow loads it."""
    made = GeneratorModel()
    places = {"base": "base.json", "settings": "generator.json", "aligned": aligned}
    artifacts = {name: str(version / place) for name, place in places.items()}
    made.load_context(SimpleNamespace(artifacts=artifacts))
    return made


@pytest.fixture(scope="module")
def model(version: Path, tmp_path_factory: pytest.TempPathFactory) -> GeneratorModel:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))  # the base is named relative to the project
        patch.setenv("ONLINEVPO_DEVICE", "cpu")
        return loaded(version, "lora")


def test_files_hold_the_clips_of_the_generator_with_its_lora(
    model: GeneratorModel, version: Path, repository: Path, tmp_path: Path
) -> None:
    table = pd.DataFrame(
        {"prompt": [PROMPT] * 2, "seed": [1, 2], "path": [str(tmp_path / f"{n}.mp4") for n in "ab"]}
    )
    found = model.predict(None, table)
    assert list(found.columns) == ["prompt", "seed", "path"]
    base = repository / "models" / "miniature"
    aligned = Generator.over(base, SETTINGS, torch.device("cpu"), version / "lora")
    expected, _ = aligned.sample([PROMPT] * 2, [1, 2])
    plain, _ = Generator.over(base, SETTINGS, torch.device("cpu")).sample([PROMPT] * 2, [1, 2])
    for place, path in enumerate(found["path"]):
        written = read_video(path).frames.float()
        assert (written - expected[place].float()).abs().mean() < 4  # H.264 is not lossless
        assert (written - plain[place].float()).abs().mean() > 8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def test_bytes_come_where_no_path_is_given_and_the_same_prompt_twice_gives_two_clips(
    model: GeneratorModel, tmp_path: Path
) -> None:
    found = model.predict(None, [PROMPT, PROMPT])
    assert found["seed"].nunique() == 2
    assert found["video"][0] != found["video"][1]
    (tmp_path / "x.mp4").write_bytes(found["video"][0])
    assert tuple(read_video(tmp_path / "x.mp4").frames.shape) == (9, 3, 48, 48)


def test_a_clip_does_not_depend_on_what_else_is_asked(version: Path) -> None:
    other = "a blue square moving right fast on a black background"
    alone = loaded(version, "lora").predict(None, [PROMPT])
    late = loaded(version, "lora").predict(None, [other, PROMPT, other])
    assert late["seed"][1] == alone["seed"][0] and late["video"][1] == alone["video"][0]
    assert late["video"][1] != late["video"][0] != late["video"][2]


def test_a_version_with_whole_weights_draws_with_them(
    version: Path, repository: Path, tmp_path: Path
) -> None:
    base = repository / "models" / "miniature"
    family = load_family(base, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    for value in family.denoiser.parameters():
        value.data += 0.05 * torch.randn(value.shape, generator=generator)
    family.save_weights(tmp_path / "weights")
    for name in ("base.json", "generator.json"):
        shutil.copyfile(version / name, tmp_path / name)
    table = pd.DataFrame({"prompt": [PROMPT], "seed": [1]})
    drawn = loaded(tmp_path, "weights").predict(None, table)["video"][0]
    (tmp_path / "x.mp4").write_bytes(drawn)
    written = read_video(tmp_path / "x.mp4").frames.float()
    expected, _ = Generator(family, SETTINGS).sample([PROMPT], [1])
    plain, _ = Generator.over(base, SETTINGS, torch.device("cpu")).sample([PROMPT], [1])
    assert (written - expected[0].float()).abs().mean() < 4  # H.264 is not lossless
    assert (written - plain[0].float()).abs().mean() > 8


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "no prompts"),
        ([3], "prompt 0: must be text"),
        (["x" * 20_001], "at most 20000"),
        (pd.DataFrame({"text": ["a"]}), "no column `prompt`"),
        (pd.DataFrame({"prompt": ["a"], "seed": [-1]}), "seed 0"),
        (pd.DataFrame({"prompt": ["a"], "seed": [1.5]}), "seed 0"),
        (pd.DataFrame({"prompt": ["a"], "seed": [float("nan")]}), "seed 0"),
    ],
)
def test_what_cannot_be_asked_is_one_line(model: GeneratorModel, given: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        model.predict(None, given)  # type: ignore[arg-type]


def test_a_base_with_one_other_byte_is_named(version: Path, repository: Path, tmp_path: Path) -> None:
    files = json.loads((version / "base.json").read_text())["files"]
    copy = tmp_path / "base"
    shutil.copytree(repository / "models" / "miniature", copy)
    check_base(copy, files)
    weights = copy / "vae" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"vae/diffusion_pytorch_model\.safetensors: not the base"):
        check_base(copy, files)
    weights.unlink()
    with pytest.raises(InputError, match="missing"):
        check_base(copy, files)
    with pytest.raises(InputError, match="unsafe"):
        check_base(copy, {"../x": ""})


def test_the_base_is_looked_for_where_one_says_and_in_no_other_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    about = {"base": "./nowhere", "revision": None, "copy": None}
    with pytest.raises(InputError, match="ONLINEVPO_BASE"):
        located(about)
    monkeypatch.setenv("ONLINEVPO_BASE", str(tmp_path / "mine"))
    assert located(about) == tmp_path / "mine"
