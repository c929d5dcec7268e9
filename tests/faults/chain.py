"""The whole chain of steps in seconds: a tiny base, tiny params, the real commands, in forks of one process.

A step's command takes seconds to import and a fraction of that to work. So the parent imports everything
once, with one thread, and every attempt is a fork of it that runs the command line as a person would.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from components.corpus.world.scene import all_scenes
from components.runtime.step import main
from tests.alignment.tiny import save_tiny
from tests.reward.conftest import write_inputs, write_reward

PROMPTS = 24
CLIP = {"frames": 5, "height": 16, "width": 16}
SAMPLING = {"num_frames": 5, "height": 16, "width": 16, "steps": 2, "guidance": 1.0, "batch": 16}
REWARD = {
    "ladders": {"world": 12, "footage": 12, "generated": 12, "reconstructed": 4, "few_steps": 0,
                "composed": 0.2},
    "network": {"members": 2, "hidden": 8, "embedding": 8, "bins": 2},
    "training": {"steps": 60, "batch": 6, "warmup": 2, "checkpoint_every": 5},
    "card": {"contents_per_type": 1, "attacks": 4, "generator_attacks": 0, "baselines": False},
    "gate": {
        "srcc_world": -1, "srcc_footage": -1, "srcc_all": -1, "srcc_heldout_types": -1, "reference_above": 0,
        "adjacent_ordered": 0, "two_apart_ordered": 0, "attacks": 0, "stillness_gain": 1e9, "judge_low": -2,
    },
}  # fmt: skip
ALIGNMENT = {
    "iterations": 3, "prompts_per_iteration": 3, "num_generations": 3, "inner_updates": 2,
    "timesteps_per_pair": 2, "reference_sync_every": 3,
    "learning_rate": 1e-2, "lora_rank": 2, "beta": 50.0, "min_gap": 0.0, "motion_floor": 0.0,
    "noise_gap": 0.0,
    "checkpoint_every": 1, "refresh_reward_every": 0, "guards": {"every": 0, "drift_limit": 1e9},
}  # fmt: skip
INPUTS = {
    "corpus": (),
    "generator": ("corpus",),
    "reward": ("drawn/corpus", "drawn/generator"),
    "alignment": ("corpus", "generator", "reward"),
    "evaluation": ("corpus", "generator", "reward", "alignment"),
    "registry": ("alignment", "evaluation", "generator", "reward"),
}
STEPS = tuple(INPUTS)


@dataclass(frozen=True)
class Attempt:
    """A running fork: its process, and where its output went."""

    pid: int
    log: Path

    def wait(self) -> int:
        """Its exit code, negative where a signal ended it."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def ended(self) -> bool:
        """Whether it has ended; it is still to be waited for."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


@dataclass(frozen=True)
class Chain:
    """A folder in which steps run: params.yaml, a tiny base, and the artifacts that are there already."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Chain:
        """Write the base and the params."""
        torch.set_num_threads(1)
        save_tiny(folder / "base")
        # The tiny base draws nothing that a reward could learn from: it is trained on drawn clips, and what
        # the later steps are scored by has random weights.
        (folder / "drawn").mkdir()
        write_inputs(folder / "drawn")
        write_reward(folder / "reward")
        gate = {"minimum": {"prompts": 1, "pairs": 1}, "absolute": [{"metric": "pairs", "at_least": 1}]}
        (folder / "gate.yaml").write_text(yaml.safe_dump(gate))
        captions = [scene.caption for scene in all_scenes()[:: 576 // PROMPTS]][:PROMPTS]
        (folder / "prompts.txt").write_text("\n".join(captions) + "\n")
        params = {
            "run": {"seed": 5, "device": "cpu"},
            "corpus": {
                "sources": ["world"], **CLIP, "world_clips": {"train": 12, "val": 4, "test": 8},
                "prompts": str(folder / "prompts.txt"),
            },
            "generator": {
                "base": str(folder / "base"), "sampling": SAMPLING, "prompts": 6, "samples_per_prompt": 2,
            },
            "reward": REWARD,
            "alignment": ALIGNMENT,
            "evaluation": {"prompts": 4, "seeds": 1, "flow_pairs": 1, "resamples": 1000, "report_pairs": 1},
            "registry": {"gate": str(folder / "gate.yaml")},
        }  # fmt: skip
        (folder / "params.yaml").write_text(yaml.safe_dump(params))
        return cls(folder)

    def begin(
        self,
        step: str,
        out: str | Path,
        more: Mapping[str, str] | None = None,
        before: Callable[[], None] | None = None,
    ) -> Attempt:
        """Start a step's command in a fork.

        Args:
            step: its name; its inputs are the artifacts of that name in the folder.
            out: where it publishes.
            more: environment beside the present one.
            before: called in the fork first.
        """
        log = self.folder / f"{Path(out).name}.log"
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            return Attempt(pid, log)
        code = 70
        try:
            os.setpgid(0, 0)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(
                    number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
                )
            with log.open("ab", buffering=0) as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            os.chdir(self.folder)
            # One core: no step then starts worker processes, which would import everything anew.
            os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[-1]})
            os.environ.update(more or {})
            if before is not None:
                before()
            given = [part for name in INPUTS[step] for part in (f"--{Path(name).name}", name)]
            app = importlib.import_module(f"components.{step}.__main__").app
            try:
                main(app, ["run", *given, "--out", str(out)])
            except SystemExit as end:
                code = int(end.code or 0)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(code)

    def run(self, step: str, out: str | Path, more: Mapping[str, str] | None = None) -> int:
        """Run a step's command to its end; its exit code."""
        return self.begin(step, out, more).wait()
