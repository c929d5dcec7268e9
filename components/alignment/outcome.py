"""What a run that has ended publishes: which policy, with which figures, and why not, if it is refused."""

from __future__ import annotations

from pathlib import Path

import torch

from components.alignment.candidates.pairs import REASONS
from components.alignment.loop import AlignmentLoop
from components.alignment.monitor import curve
from components.alignment.strategies import Setting
from components.runtime.compute.seeds import derive
from components.video.clip import Clip
from components.video.contact_sheets import contact_sheet

#: Training prompts shown before and after on the contact sheet.
SHOWN = 6


def load_best(loop: AlignmentLoop) -> str:
    """Load the kept policy in place of the last one, if it is an earlier one.

    Where none was kept and the last one's figures are not finite, load the base.

    Returns:
        Which policy it is now, in words.
    """
    kept = loop.guards.kept_iteration
    if loop.best and kept != loop.done:
        loop.policy.restore(loop.best)
        return f"the policy after iteration {kept} of {loop.done}"
    if loop.guards.broken:
        loop.policy.reset_to_base()
        return "the base"
    return "the last policy"


def refusal_of(loop: AlignmentLoop) -> str | None:
    """Return why the policy that `load_best` loads is the base, with the figures; None where it is not."""
    kept = loop.guards.kept_iteration if loop.best else None
    trained = 0.0 if loop.guards.broken else float(loop.updates)
    if kept is not None and kept != loop.done:
        trained = loop.curve[kept - 1]["updates"]
    if trained:
        return None
    names = ("pairs", *REASONS[1:], "candidates_not_finite", "updates_skipped")
    counts = {name: int(sum(row[name] for row in loop.curve)) for name in names}
    figures = ", ".join(f"{name} {count}" for name, count in counts.items() if count or name == "pairs")
    reason = loop.guards.stop or f"{loop.updates} updates in {loop.done} iterations"
    return f"no trained policy to publish: {reason} ({figures})"


def metrics_of(loop: AlignmentLoop) -> dict[str, float]:
    """Return the run's flat figures."""
    adopted = [version.adopted for version in loop.reward.versions[1:]]
    counts = {
        "iterations": loop.done,
        "updates": loop.updates,
        "reference_refreshes": loop.reference.version,
        "reference_refused": loop.reference.refused,
        "reward_versions_adopted": sum(adopted),
        "reward_versions_refused": len(adopted) - sum(adopted),
    }
    figures = {name: float(count) for name, count in counts.items()}
    return curve.summary(loop.curve) | figures | loop.guards.metrics()


@torch.no_grad()
def draw_sheet(setting: Setting, path: Path) -> None:
    """Draw the same prompts and seeds from the base and from the policy, row under row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    generator, texts = setting.generator, [prompt.text for prompt in setting.prompts]
    shown = texts[:: max(1, len(texts) // SHOWN)][:SHOWN]
    seeds = [derive(setting.params.run.seed, "alignment sheet", text) for text in shown]
    with setting.policy.base():
        before = generator.sample(shown, seeds)[0]
    after = generator.sample(shown, seeds)[0]
    clips, labels = [], []
    for text, *pair in zip(shown, before, after, strict=True):
        for name, frames in zip(("base", "aligned"), pair, strict=True):
            clips.append(Clip(frames, generator.fps))
            labels.append(f"{name}\n{text}")
    contact_sheet(clips, labels, title="Before and after alignment, same prompts and seeds").save(path)
