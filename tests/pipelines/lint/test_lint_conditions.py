"""Branches as Kubeflow's compiler writes them: one without its other case is a fault."""

# Without postponed annotations: kfp reads these functions' annotations as they are.
from pathlib import Path

from kfp import dsl
from kfp.compiler import Compiler

from pipelines.lint.lint import findings, read_pipeline


@dsl.container_component
def flip(out: dsl.OutputPath(str)):  # type: ignore[no-untyped-def, valid-type]
    return dsl.ContainerSpec(image="i", command=["flip", out])


@dsl.container_component
def say(text: str, out: dsl.Output[dsl.Artifact]):  # type: ignore[no-untyped-def]
    return dsl.ContainerSpec(image="i", command=["say", text, out.path])


@dsl.pipeline(name="branches")
def branches() -> None:
    side = flip().outputs["out"]
    with dsl.If(side == "lone"):
        say(text="1")
    with dsl.If(side == "a"):
        say(text="2")
    with dsl.Else():
        say(text="3")
    with dsl.If(side == "b"):
        say(text="4")
    with dsl.Elif(side == "c"):
        say(text="5")
    with dsl.Else():
        say(text="6")
    with dsl.If(side == "open"):
        say(text="7")
    with dsl.Elif(side == "d"):
        say(text="8")


def test_conditions_as_kubeflow_s_compiler_writes_them(tmp_path: Path) -> None:
    """A lone If and an If with Elif but no Else are faults; with Else they are none."""
    file = tmp_path / "branches.yaml"
    Compiler().compile(branches, str(file))
    documents = read_pipeline(file)
    tasks = {
        name: task
        for c in documents[0]["components"].values()
        for name, task in c.get("dag", {}).get("tasks", {}).items()
    }
    tasks |= documents[0]["root"]["dag"]["tasks"]
    found = [f.where.split(".")[-3] for f in findings(documents) if "condition without" in f.what]
    conditions = sorted(tasks[name]["triggerPolicy"]["condition"].rsplit(" == ", 1)[1] for name in found)
    assert conditions == ["'lone'", "'open'"]
