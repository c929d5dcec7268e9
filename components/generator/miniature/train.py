"""Makes the miniature from nothing: footage, VAE, transformer with text encoder."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch

from components.corpus.world.render import render
from components.corpus.world.scene import all_scenes
from components.corpus.world.splits import heldout_scenes, split_of
from components.generator.card import reconstruction_psnr, semantic_scores
from components.generator.families.wan import Wan
from components.generator.generator import Generator
from components.generator.miniature.architecture import build_pipeline
from components.generator.miniature.flow_training import train_flow
from components.generator.miniature.footage import make_footage
from components.generator.miniature.vae_training import train_vae
from components.generator.params import GeneratorParams
from components.runtime.artifacts.publish import publish
from components.runtime.compute.devices import configure_threads, describe, resolve
from components.runtime.compute.seeds import derive

#: What made the weights, kept beside them.
RECORD = "training.json"


def train_miniature(params: GeneratorParams, out: str | Path) -> dict[str, float]:
    """Train the miniature, publish it at `out` as a diffusers folder, and return its card.

    Only the training split's scenes are seen. A killed run resumes from its last checkpoint.
    """
    configure_threads()
    device = resolve(params.run.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    recipe, seed, sampling = params.miniature, params.run.seed, params.sampling
    with publish(out, step="miniature", params=params) as workspace:
        scenes = [scene for scene in all_scenes() if split_of(scene) == "train"]
        footage, captions = make_footage(
            scenes, recipe.clips, seed, recipe.degraded_share, sampling.num_frames, sampling.height
        )
        torch.manual_seed(derive(seed, "miniature weights"))
        # Any: diffusers hides a pipeline's parts from type checkers.
        pipeline: Any = build_pipeline(recipe.shift)
        vae_began = time.monotonic()
        train_vae(pipeline.vae, footage, recipe, seed, device, workspace.checkpoints / "vae")
        flow_began = time.monotonic()
        train_flow(pipeline, footage, captions, recipe, seed, device, workspace.checkpoints / "flow")
        seconds = {"vae": flow_began - vae_began, "flow": time.monotonic() - flow_began}
        stages = [
            {
                "stage": stage,
                "steps": steps,
                "device": describe(str(device)),
                "seconds_of_last_attempt": round(seconds[stage], 1),
            }
            for stage, steps in (("vae", recipe.vae_steps), ("flow", recipe.flow_steps))
        ]
        metrics = save_miniature(pipeline, params, stages, workspace.dir)
        workspace.write_metrics(metrics)
    return metrics


def save_miniature(
    pipeline: Any, params: GeneratorParams, stages: list[dict[str, Any]], folder: Path
) -> dict[str, float]:
    """Write the `WanPipeline` in fp16 and its record; return its card, measured on what was written."""
    for part in (pipeline.vae, pipeline.transformer, pipeline.text_encoder):
        part.to("cpu").half()
    pipeline.save_pretrained(folder, safe_serialization=True)
    record = {
        "command": "python -m components.generator train",
        "seed": params.run.seed,
        "recipe": params.miniature.model_dump(mode="json"),
        "stages": stages,
    }
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n")
    for part in (pipeline.vae, pipeline.transformer, pipeline.text_encoder):
        part.float()
    return examine(Generator(Wan(pipeline), params.sampling), params.run.seed)


def examine(generator: Generator, seed: int) -> dict[str, float]:
    """Return the miniature's card: held-out scenes sampled and reconstructed, read back by the detector."""
    scenes = heldout_scenes()
    pristine = torch.stack(
        [render(scene, derive(seed, "miniature card", i)) for i, scene in enumerate(scenes)]
    )
    rebuilt = generator.reconstruct(pristine)
    frames, _ = generator.sample(
        [scene.caption for scene in scenes],
        [derive(seed, "miniature card", scene.caption) for scene in scenes],
    )
    card = semantic_scores(frames, scenes)
    reconstruction = semantic_scores(rebuilt, scenes)
    card |= {f"reconstruction_{name}": reconstruction[name] for name in ("shape", "template_iou")}
    card["reconstruction_psnr_db"] = reconstruction_psnr(pristine, rebuilt)
    return card
