"""VBench's dimensions that need pretrained weights: named with what would provide them, never guessed at."""

from __future__ import annotations

from components.evaluation.dimensions.base import Dimension

DIMENSIONS = (
    Dimension(
        name="subject_consistency",
        group="quality",
        definition="cosine of each frame's features with the frame before and with the first",
        needs="weights",
        provider="DINO ViT-B/16",
    ),
    Dimension(
        name="background_consistency",
        group="quality",
        definition="cosine of each frame's features with the frame before and with the first",
        needs="weights",
        provider="CLIP ViT-B/32",
    ),
    Dimension(
        name="aesthetic_quality",
        group="quality",
        definition="LAION's linear aesthetic predictor, over 10",
        needs="weights",
        provider="CLIP ViT-L/14 and the LAION aesthetic head",
    ),
    Dimension(
        name="imaging_quality",
        group="quality",
        definition="no-reference image quality, over 100",
        needs="weights",
        provider="MUSIQ (SPAQ)",
    ),
    Dimension(
        name="object_class",
        group="semantic",
        definition="frames in which the named object is detected",
        needs="weights",
        provider="GRiT-B (dense captions)",
    ),
    Dimension(
        name="multiple_objects",
        group="semantic",
        definition="frames in which both named objects are detected (the world has one object a scene)",
        needs="weights",
        provider="GRiT-B (dense captions)",
    ),
    Dimension(
        name="human_action",
        group="semantic",
        definition="the named action among the top five",
        needs="weights",
        provider="UMT-L/16 (Kinetics-400)",
    ),
    Dimension(
        name="color",
        group="semantic",
        definition="the named colour among the captions of the object",
        needs="weights",
        provider="GRiT-B (dense captions)",
    ),
    Dimension(
        name="spatial_relationship",
        group="semantic",
        definition="two named objects beside or above each other (the world has one object a scene)",
        needs="weights",
        provider="GRiT-B (dense captions)",
    ),
    Dimension(
        name="scene",
        group="semantic",
        definition="every word of the scene in the frame's caption",
        needs="weights",
        provider="Tag2Text (Swin-B)",
    ),
    Dimension(
        name="appearance_style",
        group="semantic",
        definition="similarity of each frame to the style's text",
        needs="weights",
        provider="CLIP ViT-B/32",
    ),
    Dimension(
        name="temporal_style",
        group="semantic",
        definition="similarity of the clip to the text of a camera move",
        needs="weights",
        provider="ViCLIP (InternVid-10M-FLT)",
    ),
    Dimension(
        name="overall_consistency",
        group="semantic",
        definition="similarity of the clip to the prompt",
        needs="weights",
        provider="ViCLIP (InternVid-10M-FLT)",
    ),
)
