"""`python -m images`: build the images, fetch wheels for building without network, lock, audit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from components.runtime.step import command_app, main
from images.catalogue import Variant

app = command_app(
    "Container images: build, fetch a wheelhouse, refresh the locks, list and audit what is in them."
)

FamilyOption = Annotated[
    list[str] | None, typer.Option(help="image family; may be repeated [default: all]", show_default=False)
]
VariantOption = Annotated[str, typer.Option(help="cpu or cuda: the build of torch")]
TorchOption = Annotated[
    str | None,
    typer.Option(
        help="index, or folder (`build`: inside the build), with the CPU build of torch", envvar="TORCH_INDEX"
    ),
]


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": False})
def build(
    context: typer.Context,
    family: FamilyOption = None,
    engine: Annotated[str, typer.Option(help="docker, podman or buildah")] = "podman",
    variant: VariantOption = "cpu",
    output: Annotated[
        Path, typer.Option("--output", "-o", help="images file to write; families not built keep their line")
    ] = Path("images.yaml"),
    tag: Annotated[str | None, typer.Option(help="[default: the commit of its sources]")] = None,
    push: Annotated[str | None, typer.Option(help="push to this prefix, e.g. registry.example/team")] = None,
    base_image: Annotated[str, typer.Option(help="image with Python 3.11")] = "python:3.11-slim-bookworm",
    wheelhouse: Annotated[
        Path | None, typer.Option(help="folder of wheels, then the only source; see `wheelhouse`")
    ] = None,
    index: Annotated[
        str | None, typer.Option(help="package index, instead of pip's own default", envvar="PIP_INDEX_URL")
    ] = None,
    torch_index: TorchOption = None,
) -> None:
    """Build images and write the images file. What follows ` -- ` goes to the engine's build as it is."""
    from images.build import Build, build_images

    settings = Build(
        engine=engine,
        variant=_variant(variant),
        tag=tag,
        push=push,
        base_image=base_image,
        wheelhouse=wheelhouse,
        index=index,
        torch_index=torch_index,
        extra=tuple(context.args),
    )
    build_images(settings, tuple(family or ()), output)
    print(output)


@app.command()
def wheelhouse(
    to: Annotated[Path, typer.Option(help="folder to fill")],
    family: FamilyOption = None,
    variant: VariantOption = "cpu",
    torch_index: TorchOption = None,
) -> None:
    """Download every locked file, for `build --wheelhouse` where there is no network."""
    from images.wheelhouse import fill

    print(f"{to}: {fill(to, tuple(family or ()), _variant(variant), torch_index)} files")


@app.command()
def lock(
    torch_index: TorchOption = None,
    upgrade: Annotated[
        bool, typer.Option(help="newest versions of what constraints.txt leaves open")
    ] = False,
) -> None:
    """Resolve the locks anew after a change of constraints.txt or of a .in file."""
    from images.lock import write_locks

    for path in write_locks(torch_index, upgrade):
        print(f"changed: {path}")


@app.command()
def bom(
    to: Annotated[Path, typer.Option(help="folder for the files")] = Path("build/bom"),
    variant: VariantOption = "cpu",
) -> None:
    """Write a CycloneDX bill of materials for every image."""
    from images.audit import write_bills

    for file, packages in write_bills(to, _variant(variant)):
        print(f"{file}: {packages} packages")


@app.command()
def audit() -> None:
    """Look up every pinned version in PyPI's advisories; exit 1 on a vulnerability, or if none was known."""
    from images.audit import audit as ask
    from images.audit import pins

    found = ask(pins())
    for one in found.advisories:
        cure = f"fixed in {', '.join(one.fixed)}" if one.fixed else "no version without it"
        print(f"{one.package} {one.version}: {one.name}, {cure}")
    known = found.asked - len(found.unknown)
    print(
        f"{len(found.advisories)} vulnerabilities in {known} packages; nothing known of {len(found.unknown)}"
    )
    raise typer.Exit(int(bool(found.advisories) or not known))


def _variant(name: str) -> Variant:
    from components.runtime.errors import InputError
    from images.catalogue import VARIANTS

    if name not in VARIANTS:
        raise InputError(f"--variant {name}: must be one of {', '.join(VARIANTS)}")
    return cast(Variant, name)


if __name__ == "__main__":
    main(app)
