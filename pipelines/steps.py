"""What the pipeline knows of each step: its image, what it reads, what it leaves for people to look at.

The compiler, the linter, the entry point of the containers and the exit handler all read this one table. It
imports nothing outside the standard library, because it runs in images without kfp and without torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["Dataset", "Model", "Artifact", "Metrics", "HTML", "Markdown"]
Family = Literal["data", "model", "evaluation", "control"]

#: The image families, see images/README.md.
FAMILIES: tuple[Family, ...] = ("data", "model", "evaluation", "control")
#: Name of every step's main output: the artifact directory that the step contract speaks of.
ARTIFACT = "artifact"
#: Names of a step's two parameters: the shared `run` section and its own, each as JSON text.
RUN_PARAMS, STEP_PARAMS = "run_params", "step_params"
#: The exit handler's task.
FINISH = "finish"


@dataclass(frozen=True)
class ShownFile:
    """A file of the artifact that the Kubeflow UI shows as an output of its own."""

    kind: Kind
    file: str


@dataclass(frozen=True)
class Step:
    """One task of the pipeline.

    Attributes:
        name: the package under components, and the task's name.
        family: the image it runs in.
        inputs: the steps whose artifacts it reads; each is the option --<name> of its command.
        kind: the type of its artifact in Kubeflow.
        shown: further outputs by name, each a file of the artifact.
        scales: whether it may take several processes (one per GPU) and several nodes.
    """

    name: str
    family: Family
    inputs: tuple[str, ...] = ()
    kind: Kind = "Artifact"
    shown: dict[str, ShownFile] = field(default_factory=dict)
    scales: bool = False


_METRICS = ShownFile("Metrics", "metrics.json")

STEPS: tuple[Step, ...] = (
    Step("corpus", "data", kind="Dataset", shown={"metrics": _METRICS}),
    Step("generator", "model", ("corpus",), kind="Model", shown={"metrics": _METRICS}),
    Step(
        "reward",
        "model",
        ("corpus", "generator"),
        kind="Model",
        shown={"metrics": _METRICS, "card": ShownFile("Markdown", "card.md")},
    ),
    Step(
        "alignment",
        "model",
        ("corpus", "generator", "reward"),
        kind="Model",
        shown={"metrics": _METRICS},
        scales=True,
    ),
    Step(
        "evaluation",
        "evaluation",
        ("corpus", "generator", "reward", "alignment"),
        shown={"metrics": _METRICS, "report": ShownFile("HTML", "report.html")},
    ),
    Step(
        "registry",
        "control",
        ("generator", "reward", "alignment", "evaluation"),
        shown={"metrics": _METRICS},
    ),
)

#: The pipeline's inputs: the name of each, and the section of the params that it holds as JSON text.
PIPELINE_INPUTS: dict[str, str] = {RUN_PARAMS: "run", **{f"{s.name}_params": s.name for s in STEPS}}


def step(name: str) -> Step:
    """The step called `name`.

    Raises:
        KeyError: if there is none.
    """
    return {s.name: s for s in STEPS}[name]
