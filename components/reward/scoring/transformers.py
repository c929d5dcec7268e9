"""A regressor of `transformers` as a reward: VideoScore and its like, or a video classifier with one output a
figure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from pydantic.dataclasses import dataclass
from torch import Tensor

from components.reward.base import InputSpec, Rating, check_clips, description_of
from components.runtime.artifacts.pretrained import open_model, quiet
from components.runtime.compute.devices import resolve
from components.runtime.errors import InputError, one_line

#: The folder of the checkpoint inside the reward's.
MODEL = "model"
PROMPT, FRAMES = "{prompt}", "{frames}"
DEFAULT_FRAMES = 16


@dataclass(frozen=True)
class Description:
    """How a model of `transformers` becomes a reward; the config.json of such a reward.

    Attributes:
        source: hub id, folder or URI that the model came from.
        frames: a video model gets exactly this many, evenly spaced; one that reads text at most this many.
        aspects: a name for each output, in their order; the score is their mean.
        text: what a model that reads text is told, with {prompt} for the clip's prompt and {frames} for its
            frames, which otherwise follow at the end; None for a model that reads none.
        measured: whether a card was made of it here.
    """

    source: str
    frames: int
    aspects: tuple[str, ...]
    text: str | None = None
    measured: bool = False

    def as_json(self) -> dict[str, Any]:
        """With the kind that `open_reward` goes by."""
        return {"kind": "transformers", **asdict(self)}


class Regressor:
    """A model with one figure an aspect, higher is better, its processor, and how it is asked.

    Clips are scored one after the other: texts and frames of several would need padding, and a score would
    then depend on its neighbours. There is no ensemble, so the uncertainty is 0.
    """

    def __init__(self, model: Any, processor: Any, description: Description, device: torch.device) -> None:
        self.model = model.to(device).eval().requires_grad_(False)
        self.processor, self.description, self.device = processor, description, device

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> Regressor:
        """Loads what `reward import` published.

        Raises:
            InputError: a file is missing or not what it should be; the message names it.
        """
        folder = Path(folder)
        description = description_of(Description, folder, "a regressor")
        return cls.of(folder / MODEL, description, device)

    @classmethod
    def of(cls, checkpoint: Path, description: Description, device: str = "cpu") -> Regressor:
        """A checkpoint's folder as a reward; nothing is downloaded and no pickle is read.

        Raises:
            InputError: not such a checkpoint, or one that does not fit the description.
        """
        with quiet():
            model, processor = _model(checkpoint), _processor(checkpoint)
        if model.config.num_labels != len(description.aspects):
            raise InputError(
                f"{checkpoint}: {model.config.num_labels} outputs, "
                f"but {len(description.aspects)} aspects are named"
            )
        if reads_text(processor) != (description.text is not None):
            what = "reads text" if reads_text(processor) else "reads no text"
            raise InputError(f"{checkpoint}: this model {what}, and its description says otherwise")
        return cls(model, processor, description, resolve(device))

    @property
    def input_spec(self) -> InputSpec:
        """The largest side its processor brings frames to, and one clip at a time."""
        images = getattr(self.processor, "image_processor", self.processor)
        size = dict(getattr(images, "size", None) or {})
        sides = [int(side) for side in size.values() if isinstance(side, int)]
        return InputSpec(max(sides, default=512), 1)

    def score(self, frames: Tensor, fps: float, prompts: Sequence[str] | None = None) -> Tensor:
        """See `Reward`."""
        return self.rate(frames, fps, prompts).score

    def rate(self, frames: Tensor, fps: float, prompts: Sequence[str] | None = None) -> Rating:
        """See `Reward`; the aspects are the model's outputs, in its units."""
        check_clips(frames, fps, prompts)
        texts = [""] * len(frames) if prompts is None else prompts
        rows = [self._outputs(clip, text) for clip, text in zip(frames, texts, strict=True)]
        outputs = torch.stack(rows) if rows else torch.zeros(0, len(self.description.aspects))
        aspects = {name: outputs[:, place] for place, name in enumerate(self.description.aspects)}
        return Rating(outputs.mean(1), torch.zeros(len(outputs)), aspects)

    @torch.no_grad()
    def _outputs(self, clip: Tensor, prompt: str) -> Tensor:
        """(aspects,) float32 of one clip (T, 3, H, W)."""
        if clip.dtype != torch.uint8:
            clip = (clip.float().clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)
        places = self._places(len(clip))
        pictures = [Image.fromarray(clip[place].permute(1, 2, 0).cpu().numpy()) for place in places]
        if self.description.text is None:
            inputs = self.processor([pictures], return_tensors="pt")
        else:
            token = str(self.processor.image_token)
            text = asked(self.description.text, prompt, token, len(pictures))
            inputs = self.processor(text=text, images=pictures, return_tensors="pt")
        known = {
            name: value.to(self.device, self.model.dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }
        return self.model(**known).logits[0].float().cpu()

    def _places(self, frames: int) -> list[int]:
        """Which of a clip's frames the model sees."""
        wanted = self.description.frames
        if self.description.text is not None and frames <= wanted:
            return list(range(frames))
        return [place * frames // wanted for place in range(wanted)]


def asked(template: str, prompt: str, token: str, frames: int) -> str:
    """The text for one clip: the frames' tokens where the template has {frames}, else at its end."""
    if FRAMES not in template:
        template += FRAMES
    # A prompt is somebody's text: a token inside it would stand for a frame that is not there.
    before, _, after = template.partition(FRAMES)
    said = prompt.replace(token, " ")
    return before.replace(PROMPT, said) + f"{token} " * frames + after.replace(PROMPT, said)


def reads_text(processor: Any) -> bool:
    """Whether a processor takes text beside pictures."""
    return getattr(processor, "tokenizer", None) is not None


def described(
    checkpoint: Path, source: str, *, frames: int | None, aspects: Sequence[str], text: str | None
) -> Description:
    """The description of a checkpoint, from its own files where it says so.

    Raises:
        InputError: it cannot serve as a reward, or something has to be said that it does not say itself.
    """
    config = _config(checkpoint)
    architecture = (config.get("architectures") or ["none"])[0]
    labels = {int(key): str(name) for key, name in (config.get("id2label") or {}).items()}
    outputs = len(labels) or int(config.get("num_labels", 2))
    named = all(not name.startswith("LABEL_") for name in labels.values()) and len(labels) == outputs
    if not aspects and config.get("problem_type") != "regression":
        raise InputError(
            f"{source}: {architecture} with {outputs} outputs does not say that they are figures "
            f"(problem_type is {config.get('problem_type')!r}, not 'regression'); "
            "if they are, name them: --aspects a,b,..."
        )
    if not aspects and not named:
        raise InputError(f"{source}: its {outputs} outputs have no names; give them: --aspects a,b,...")
    names = tuple(aspects) or tuple(labels[place] for place in range(outputs))
    if len(set(names)) != outputs or len(names) != outputs:
        raise InputError(
            f"{source}: {outputs} outputs need {outputs} different names, given {', '.join(names)}"
        )
    with quiet():
        speaks = reads_text(_processor(checkpoint))
    if speaks and text is None:
        raise InputError(
            f"{source}: reads text; give the text it was trained with: --text FILE, with {PROMPT} in it"
        )
    if not speaks and text is not None:
        raise InputError(f"{source}: reads no text; --text has no effect on it")
    own = int(config.get("num_frames") or 0) or None
    if not speaks and frames is not None and own is not None and frames != own:
        raise InputError(f"{source}: takes exactly {own} frames, --frames {frames} is given")
    return Description(source, frames or own or DEFAULT_FRAMES, names, text)


def _config(checkpoint: Path) -> dict[str, Any]:
    try:
        config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
        return dict(config)
    except (OSError, ValueError, TypeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{checkpoint}/config.json: not a model of transformers ({reason})") from error


def _model(checkpoint: Path) -> Any:
    from transformers import AutoModelForSequenceClassification, AutoModelForVideoClassification

    from components.reward.scoring.idefics2 import Idefics2ForSequenceClassification

    architecture = str((_config(checkpoint).get("architectures") or ["none"])[0])
    cls: Any
    if architecture == "Idefics2ForSequenceClassification":
        cls = Idefics2ForSequenceClassification
    elif architecture.endswith("ForVideoClassification"):
        cls = AutoModelForVideoClassification
    elif architecture.endswith("ForSequenceClassification"):
        cls = AutoModelForSequenceClassification
    else:
        raise InputError(
            f"{checkpoint}: architecture {architecture}: must be one for video or sequence classification "
            "with an output for each figure"
        )
    if not any(checkpoint.glob("*.safetensors")):
        raise InputError(f"{checkpoint}: no *.safetensors in it; weights in any other form are not read")
    try:
        return open_model(cls, checkpoint, dtype="auto", trust_remote_code=False)
    except Exception as error:  # whatever a library makes of files that are not what they should be
        raise InputError(f"{checkpoint}: cannot be loaded ({_short(error)})") from error


def _processor(checkpoint: Path) -> Any:
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(str(checkpoint), local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise InputError(
            f"{checkpoint}: no processor of frames that can be loaded ({_short(error)})"
        ) from error


def _short(error: Exception) -> str:
    return one_line(f"{type(error).__name__}: {error}")
