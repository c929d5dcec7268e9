"""The generator step: obtain the base, examine it on held-out prompts, draw samples for later steps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from components.corpus.dataset import Corpus
from components.corpus.prompts import Prompt
from components.corpus.world.scene import parse_caption
from components.generator.card import reconstruction_psnr, semantic_scores
from components.generator.generator import (
    PIPELINE,
    SETTINGS,
    Generator,
    fetch_base,
    load_family,
    refuse_other_folder,
)
from components.generator.params import GeneratorParams
from components.generator.sampling import require_finite
from components.runtime.artifacts.artifact import open_artifact
from components.runtime.artifacts.manifest import MANIFEST
from components.runtime.artifacts.publish import StepResult, publish
from components.runtime.compute.devices import configure_determinism, configure_threads, resolve
from components.runtime.compute.seeds import derive, torch_generator
from components.runtime.progress import Progress
from components.runtime.tracking.step_run import track
from components.video.clip import Clip
from components.video.contact_sheets import contact_sheet

SAMPLES = "samples.safetensors"
#: What an artifact holds besides its weights; the published generator has its own.
NOT_WEIGHTS = (MANIFEST, "metrics.json")
#: Clips of the corpus passed through the VAE: material for the reward,
#: and for the card's reconstruction figures.
RECONSTRUCTIONS = 96


def run(params: GeneratorParams, *, corpus: str | Path, out: str | Path) -> StepResult:
    """Publish the base model, its card and its samples at `out`.

    Raises:
        InputError: the corpus or the base is missing, or the base cannot make clips of the corpus's size.
    """
    refuse_other_folder(params.base)
    configure_threads()
    configure_determinism()
    device = resolve(params.run.device)
    opened = open_artifact(corpus, step="corpus")
    with (
        track("generator", params),
        publish(out, step="generator", params=params, inputs={"corpus": opened}) as workspace,
    ):
        source = fetch_base(params.base, params.revision)
        shutil.copytree(
            source,
            workspace.dir / PIPELINE,
            ignore=shutil.ignore_patterns(".*", *NOT_WEIGHTS),
            dirs_exist_ok=True,
        )
        (workspace.dir / SETTINGS).write_text(params.sampling.model_dump_json(indent=2) + "\n")
        generator = Generator(
            load_family(workspace.dir / PIPELINE, device, params.sampling.precision), params.sampling
        )
        data = Corpus.open(opened.path)
        metrics = _examine(generator, data, params, workspace.dir)
        _draw_samples(generator, data, params, workspace.dir)
        workspace.write_metrics(metrics)
    assert workspace.published is not None
    return StepResult(workspace.published, metrics)


def _examine(generator: Generator, data: Corpus, params: GeneratorParams, folder: Path) -> dict[str, float]:
    """Sample the held-out prompts once each; draw the sheet and read the world's prompts back."""
    prompts = data.prompts("heldout")
    if not prompts:
        return {"heldout_prompts": 0.0}
    seeds = [derive(params.run.seed, "generator card", prompt.id) for prompt in prompts]
    frames = _sample(generator, prompts, seeds, "generator: held-out prompts")
    shown = range(0, len(prompts), max(1, len(prompts) // 8))
    sheet = contact_sheet(
        [Clip(frames[index], generator.fps) for index in shown],
        [prompts[index].text for index in shown],
        title="Base samples on held-out prompts",
    )
    (folder / "plots").mkdir(exist_ok=True)
    sheet.save(folder / "plots" / "samples.png")
    metrics = {"heldout_prompts": float(len(prompts))}
    scenes = [parse_caption(prompt.text) for prompt in prompts]
    known = [scene for scene in scenes if scene is not None]
    if len(known) == len(prompts):
        metrics |= semantic_scores(frames, known)
        metrics |= _reconstruction_card(generator, data)
        metrics["shape_share_of_reconstruction"] = metrics["shape"] / max(
            metrics["reconstruction_shape"], 1e-9
        )
    return metrics


def _reconstruction_card(generator: Generator, data: Corpus) -> dict[str, float]:
    """Pass held-out world clips through the VAE and read them back."""
    clips, records = data.clips("test", "world")
    clips, records = clips[:RECONSTRUCTIONS], records[:RECONSTRUCTIONS]
    rebuilt = generator.reconstruct(clips)
    scenes = [parse_caption(record.caption or "") for record in records]
    scores = semantic_scores(rebuilt, [scene for scene in scenes if scene is not None])
    return {
        "reconstruction_psnr_db": reconstruction_psnr(clips, rebuilt),
        "reconstruction_shape": scores["shape"],
        "reconstruction_iou": scores["template_iou"],
    }


def _draw_samples(generator: Generator, data: Corpus, params: GeneratorParams, folder: Path) -> None:
    """Write base samples and VAE reconstructions of training clips, for the reward's in-domain ladders."""
    prompts = data.prompts("train")
    order = torch.randperm(len(prompts), generator=torch_generator(params.run.seed, "generator samples"))
    chosen = [prompts[int(index)] for index in order[: params.prompts]]
    repeated = [prompt for prompt in chosen for _ in range(params.samples_per_prompt)]
    seeds = [
        derive(params.run.seed, "base sample", prompt.id, number)
        for prompt in chosen
        for number in range(params.samples_per_prompt)
    ]
    frames = _sample(generator, repeated, seeds, "generator: base samples")
    clips, _ = data.clips("train")
    step = max(1, len(clips) // RECONSTRUCTIONS)
    originals = clips[::step][:RECONSTRUCTIONS].contiguous()
    tensors = {
        "frames": frames.unflatten(0, (len(chosen), params.samples_per_prompt)).contiguous(),
        "reconstructions": generator.reconstruct(originals).contiguous(),
        "reconstructed_from": originals,
    }
    save_file(tensors, folder / SAMPLES)
    lines = [json.dumps({"prompt_id": prompt.id, "text": prompt.text}) for prompt in chosen]
    (folder / "samples.jsonl").write_text("\n".join(lines) + "\n")


def _sample(generator: Generator, prompts: Sequence[Prompt], seeds: Sequence[int], what: str) -> Tensor:
    """Return frames, uint8 (N, T, 3, H, W), with progress."""
    parts = []
    batch = generator.settings.batch
    with Progress(len(prompts), what) as progress:
        for start in range(0, len(prompts), batch):
            here = slice(start, start + batch)
            frames, latents = generator.sample([prompt.text for prompt in prompts[here]], seeds[here])
            require_finite(latents)
            parts.append(frames)
            progress.update(len(parts[-1]))
    return torch.cat(parts)
