"""Every set of weights that a dimension may ask for: origin, licence, size, and what it stands in for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: File in which a fetched folder records its name, origin and licence, and size and SHA-256 of every file.
CARD = "weights.json"
#: The origin of a folder without a card.
UNKNOWN = "a folder without a card"


@dataclass(frozen=True)
class Weights:
    """One set of weights, kept as a folder of safetensors and JSON files.

    Attributes:
        name: its folder's name.
        title: the model in words.
        origin: a repository of the Hugging Face hub (``owner/name``), or the https address of one file.
        licence: of the weights, as their publisher states it.
        megabytes: download size, 10^6 bytes, rounded.
        opens: ``package.module:Class`` with a ``load(folder, device)``.
        files: what a complete folder must hold.
        form: how the origin stores tensors: ``hub`` (safetensors, else a torch state dict), ``torch`` (one
            state dict), ``flax`` (one npz).
        sha256: of the single file at ``origin``, or the first digits its publisher puts into the name.
        instead_of: the model VBench uses, where this is not it.
    """

    name: str
    title: str
    origin: str
    licence: str
    megabytes: int
    opens: str
    files: tuple[str, ...] = ("config.json", "model.safetensors")
    form: Literal["hub", "torch", "flax"] = "hub"
    sha256: str = ""
    instead_of: str = ""

    @property
    def on_hub(self) -> bool:
        """Whether the origin is a repository of the hub."""
        return "://" not in self.origin


_HERE = "components.evaluation.models"
_PREPARED = ("config.json", "model.safetensors", "preprocessor_config.json")

WEIGHTS: dict[str, Weights] = {
    weights.name: weights
    for weights in (
        Weights(
            name="dino",
            title="DINO ViT-B/16",
            origin="facebook/dino-vitb16",
            licence="Apache-2.0",
            megabytes=343,
            opens=f"{_HERE}.dino_clip:DinoEncoder",
        ),
        Weights(
            name="clip-b32",
            title="CLIP ViT-B/32",
            origin="openai/clip-vit-base-patch32",
            licence="MIT",
            megabytes=605,
            opens=f"{_HERE}.dino_clip:ClipEncoder",
            files=("config.json", "model.safetensors", "vocab.json", "merges.txt"),
        ),
        Weights(
            name="clip-l14",
            title="CLIP ViT-L/14",
            origin="openai/clip-vit-large-patch14",
            licence="MIT",
            megabytes=1711,
            opens=f"{_HERE}.dino_clip:ClipEncoder",
        ),
        Weights(
            name="aesthetic",
            title="LAION's linear aesthetic head for CLIP ViT-L/14",
            origin="https://raw.githubusercontent.com/LAION-AI/aesthetic-predictor/main/sa_0_4_vit_l_14_linear.pth",
            licence="MIT",
            megabytes=1,
            opens=f"{_HERE}.dino_clip:AestheticHead",
            files=("model.safetensors",),
            form="torch",
            sha256="2cd4e60f4f24ae3bcd57b847b13c1f3ba27edc28cc1a7f9ce74ee9f421243cba",
        ),
        Weights(
            name="musiq",
            title="MUSIQ (SPAQ)",
            origin="https://storage.googleapis.com/gresearch/musiq/spaq_ckpt.npz",
            licence="Apache-2.0",
            megabytes=109,
            opens=f"{_HERE}.musiq:Musiq",
            files=("model.safetensors",),
            form="flax",
        ),
        Weights(
            name="raft",
            title="RAFT (FlyingChairs and FlyingThings3D)",
            origin="https://download.pytorch.org/models/raft_large_C_T_V1-22a6c225.pth",
            licence="BSD-3-Clause",
            megabytes=21,
            opens=f"{_HERE}.raft:Raft",
            files=("model.safetensors",),
            form="torch",
            sha256="22a6c225",
        ),
        Weights(
            name="detector",
            title="RT-DETRv2 R101 (COCO)",
            origin="PekingU/rtdetr_v2_r101vd",
            licence="Apache-2.0",
            megabytes=307,
            opens=f"{_HERE}.detector:Detector",
            files=_PREPARED,
            instead_of="GRiT-B",
        ),
        Weights(
            name="captioner",
            title="BLIP large",
            origin="Salesforce/blip-image-captioning-large",
            licence="BSD-3-Clause",
            megabytes=1879,
            opens=f"{_HERE}.captioner:Captioner",
            files=(*_PREPARED, "vocab.txt"),
            instead_of="Tag2Text (scene) and GRiT-B's dense captions (color)",
        ),
        Weights(
            name="action",
            title="ViViT-B/16x2 (Kinetics-400)",
            origin="google/vivit-b-16x2-kinetics400",
            licence="MIT",
            megabytes=356,
            opens=f"{_HERE}.action:ActionModel",
            files=_PREPARED,
            instead_of="UMT-L/16 (Kinetics-400)",
        ),
        Weights(
            name="video-text",
            title="VideoPrism LvT base",
            origin="google/videoprism-lvt-base-f16r288",
            licence="Apache-2.0",
            megabytes=991,
            opens=f"{_HERE}.video_text:VideoText",
            instead_of="ViCLIP (InternVid-10M-FLT)",
        ),
    )
}
