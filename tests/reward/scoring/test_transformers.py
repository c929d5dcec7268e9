"""Regressors of transformers as rewards, against the models called by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import VideoMAEForVideoClassification
from transformers.models.idefics2.processing_idefics2 import Idefics2Processor
from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil

from components.reward.scoring.idefics2 import Idefics2ForSequenceClassification
from components.reward.scoring.transformers import Description, Regressor, asked, described
from components.runtime.errors import InputError
from tests.reward.conftest import textured, world
from tests.reward.scoring.tiny_regressors import ASPECTS, write_videomae, write_videoscore

TEXT = 'How good is a video of "{prompt}"?\n'


@pytest.fixture(scope="module")
def videoscore(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_videoscore(tmp_path_factory.mktemp("videoscore"))


@pytest.fixture(scope="module")
def videomae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_videomae(tmp_path_factory.mktemp("videomae"))


def _reader(checkpoint: Path, frames: int = 8) -> Regressor:
    return Regressor.of(checkpoint, Description("here", frames, ASPECTS, TEXT))


def test_a_vision_language_regressor_gives_what_the_model_gives_by_hand(videoscore: Path) -> None:
    """The text, then a token for each frame; the aspects are the outputs at the last token, the score their
    mean."""
    clip = textured(1, frames=5)[0]
    rating = _reader(videoscore).rate(clip[None], 8.0, ["a cat"])
    model = Idefics2ForSequenceClassification.from_pretrained(str(videoscore)).eval()
    processor = Idefics2Processor.from_pretrained(str(videoscore))
    pictures = [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in clip]
    inputs = processor(
        text='How good is a video of "a cat"?\n' + "<image> " * 5, images=pictures, return_tensors="pt"
    )
    with torch.no_grad():
        hidden = model.model(**inputs).last_hidden_state[0, -1]
        outputs = (load_file(videoscore / "model.safetensors")["score.weight"] @ hidden).numpy()
    assert np.allclose([float(rating.aspects[name]) for name in ASPECTS], outputs, atol=1e-5)
    assert float(rating.score) == pytest.approx(outputs.mean(), abs=1e-5)
    assert rating.uncertainty.tolist() == [0.0]


def test_the_text_and_the_picture_matter(videoscore: Path) -> None:
    reward, clips = _reader(videoscore), torch.cat((textured(1), world(1)))
    cat, dog = (reward.score(clips, 8.0, [text] * 2) for text in ("a cat", "a dog that runs"))
    assert (cat - dog).abs().min() > 1e-4 and abs(float(cat[0] - cat[1])) > 1e-4
    assert torch.equal(reward.score(clips, 8.0), reward.score(clips, 8.0, ["", ""]))


def test_a_score_does_not_depend_on_its_neighbours(videoscore: Path, videomae: Path) -> None:
    clips = torch.cat((textured(2), world(2)))
    for reward in (_reader(videoscore), Regressor.of(videomae, Description("here", 4, ("a", "b")))):
        together = reward.rate(clips, 8.0, list("abcd"))
        for place in range(4):
            alone = reward.rate(clips[[place]], 8.0, ["abcd"[place]])
            assert torch.equal(alone.score[0], together.score[place])


@pytest.mark.parametrize(("frames", "seen"), [(4, [0, 1, 2, 3]), (9, [0, 2, 4, 6]), (3, [0, 0, 1, 2])])
def test_a_video_classifier_gets_exactly_its_frames(videomae: Path, frames: int, seen: list[int]) -> None:
    clip = textured(1, frames=frames)[0]
    rating = Regressor.of(videomae, Description("here", 4, ("sharp", "smooth"))).rate(clip[None], 8.0)
    model = VideoMAEForVideoClassification.from_pretrained(str(videomae)).eval()
    pictures = [clip[place].permute(1, 2, 0).numpy() for place in seen]
    pixels = VideoMAEImageProcessorPil.from_pretrained(str(videomae))([pictures], return_tensors="pt")
    with torch.no_grad():
        outputs = model(**pixels).logits[0].tolist()
    assert [float(rating.aspects["sharp"]), float(rating.aspects["smooth"])] == pytest.approx(outputs)


def test_a_model_that_reads_text_sees_every_frame_of_a_short_clip_and_no_more_than_it_takes(
    videoscore: Path,
) -> None:
    """VideoScore's rule: all frames if they are few enough, else one of every n / most, from the first on."""
    reward = _reader(videoscore, frames=4)
    assert reward._places(3) == [0, 1, 2]
    assert reward._places(10) == np.arange(0, 10, 10 / 4).astype(int).tolist()


def test_bytes_and_floats_score_alike_and_nothing_gives_nothing(videomae: Path) -> None:
    reward, clips = Regressor.of(videomae, Description("here", 4, ("a", "b"))), world(2)
    assert torch.equal(reward.score(clips, 8.0), reward.score(clips.float() / 255.0, 8.0))
    assert reward.rate(clips[:0], 8.0).aspects["b"].shape == (0,)
    with pytest.raises(InputError, match="3 prompts for 2 clips"):
        reward.score(clips, 8.0, ["a", "b", "c"])
    with pytest.raises(InputError, match="T >= 2"):
        reward.score(clips[:, :1], 8.0)


def test_a_prompt_cannot_speak_for_frames() -> None:
    assert asked("{prompt}:{frames}.", "a <image> b {frames}", "<image>", 2) == (
        "a   b {frames}:<image> <image> ."
    )
    assert asked("of {prompt} ", "x", "<image>", 1) == "of x <image> "


def test_the_description_comes_from_the_checkpoint_where_it_says_so(videoscore: Path, videomae: Path) -> None:
    found = described(videomae, "here", frames=None, aspects=(), text=None)
    assert found == Description("here", 4, ("sharp", "smooth"))
    assert described(videoscore, "here", frames=None, aspects=ASPECTS, text=TEXT).frames == 16


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        ("videoscore", {"text": TEXT}, "5 outputs have no names.*--aspects"),
        ("videoscore", {"aspects": ASPECTS}, "reads text.*--text"),
        ("videoscore", {"aspects": ASPECTS[:4], "text": TEXT}, "5 different names"),
        ("videomae", {"text": TEXT}, "reads no text"),
        ("videomae", {"frames": 9}, "exactly 4 frames"),
        ("videomae", {"aspects": ("a", "a")}, "2 different names"),
    ],
)
def test_what_it_does_not_say_must_be_said(
    videoscore: Path, videomae: Path, kind: str, given: dict[str, object], said: str
) -> None:
    asked_for = {"frames": None, "aspects": (), "text": None, **given}
    with pytest.raises(InputError, match=said):
        described(videoscore if kind == "videoscore" else videomae, "here", **asked_for)


def test_a_classifier_is_not_taken_for_a_regressor(tmp_path: Path) -> None:
    write_videomae(tmp_path, labels=("archery", "bowling", "yoga"), problem=None)
    with pytest.raises(InputError, match=r"VideoMAEForVideoClassification with 3 outputs.*not 'regression'"):
        described(tmp_path, "here", frames=None, aspects=(), text=None)


def test_missing_weights_are_refused_and_never_drawn_at_random(tmp_path: Path) -> None:
    write_videomae(tmp_path)
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    save_file(
        {name: value for name, value in state.items() if "classifier" not in name}, file, {"format": "pt"}
    )
    with pytest.raises(InputError, match=r"tensors are missing.*classifier"):
        Regressor.of(tmp_path, Description("here", 4, ("a", "b")))


def test_a_pickle_is_never_read(tmp_path: Path) -> None:
    write_videomae(tmp_path)

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path(tmp_path / "exploded").write_text, ("boom",))

    (tmp_path / "model.safetensors").unlink()
    torch.save({"videomae.x": Bomb()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"no \*\.safetensors"):
        Regressor.of(tmp_path, Description("here", 4, ("a", "b")))
    assert not (tmp_path / "exploded").exists()


def test_code_in_a_checkpoint_is_never_run(tmp_path: Path) -> None:
    write_videomae(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["auto_map"] = {"AutoModelForVideoClassification": "evil.Model", "AutoConfig": "evil.Config"}
    config["model_type"] = "evil"
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(InputError, match="cannot be loaded"):
        Regressor.of(tmp_path, Description("here", 4, ("a", "b")))
    assert not (tmp_path / "ran").exists()


def test_other_architectures_are_named(tmp_path: Path) -> None:
    write_videomae(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["architectures"] = ["VideoMAEForPreTraining"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="VideoMAEForPreTraining: must be one for video or sequence"):
        Regressor.of(tmp_path, Description("here", 4, ("a", "b")))
