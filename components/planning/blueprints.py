"""A base model without its weights, built on torch's meta device from its configurations.

Facts of well-known releases lie in `published/`, one YAML file each with its sources named; any other base
is read from its folder, its `s3://` mirror or the hub, where only the parts' `config.json` are fetched.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
import yaml
from tokenizers import Tokenizer, models
from torch import nn
from transformers import PreTrainedTokenizerFast

from components.generator.families import ModelFamily, family_of
from components.runtime.artifacts.pretrained import fetch
from components.runtime.errors import InputError, one_line
from components.runtime.io import storage

PUBLISHED = Path(__file__).parent / "published"
#: What is fetched of a hub's repository.
CONFIGURATIONS = (
    "model_index.json",
    "*/config.json",
    "*/scheduler_config.json",
    "*/tokenizer_config.json",
)


@dataclass(frozen=True)
class ModelPart:
    """One component of a pipeline: its class in diffusers or transformers, and its configuration."""

    kind: str
    config: dict[str, Any]


@dataclass(frozen=True)
class Blueprint:
    """What is known of a base without its weights.

    Attributes:
        base: hub id, folder or s3:// prefix.
        pipeline: name of the diffusers pipeline class.
        parts: components by name; tokenizers are left out.
        prompt_tokens: longest prompt in tokens, as the tokenizer says.
        config: the pipeline's own settings (`boundary_ratio` and the like).
    """

    base: str
    pipeline: str
    parts: dict[str, ModelPart]
    prompt_tokens: int
    config: dict[str, Any] = field(default_factory=dict)


@cache
def published() -> dict[str, Blueprint]:
    """The releases whose facts come with the project, by hub id; other names of a repository included."""
    found: dict[str, Blueprint] = {}
    for path in sorted(PUBLISHED.glob("*.yaml")):
        facts = yaml.safe_load(path.read_text())
        parts = {name: ModelPart(part["class"], part["config"]) for name, part in facts["components"].items()}
        blueprint = Blueprint(
            facts["id"], facts["pipeline"], parts, facts["prompt_tokens"], facts.get("config", {})
        )
        found |= {name: blueprint for name in (facts["id"], *facts.get("aliases", ()))}
    return found


def blueprint_of(base: str, revision: str | None = None) -> Blueprint:
    """Return what is known of a base: from `published/`, its folder or mirror, or the hub.

    A mirror in S3 whose last folder is named as a release is taken to be that release, so that planning needs
    no access to the store.

    Raises:
        InputError: nothing there, or the hub cannot be reached; the known releases are listed.
    """
    if base in published():
        return published()[base]
    if storage.is_remote(base):
        for name, blueprint in published().items():
            if name.rsplit("/", 1)[-1].lower() == base.rstrip("/").rsplit("/", 1)[-1].lower():
                return replace(blueprint, base=base)
        return _read(base, base.rstrip("/"))
    try:
        folder = fetch(base, "generator.base =", revision=revision, files=CONFIGURATIONS)
    except InputError as error:
        raise InputError(f"{error}; known without the hub: {', '.join(published())}") from error
    return _read(base, str(folder))


def _read(base: str, place: str) -> Blueprint:
    """Return the blueprint of a pipeline that is saved at a folder or an s3:// prefix."""

    def parsed(name: str) -> dict[str, Any]:
        try:
            return dict(json.loads(storage.read_bytes(f"{place}/{name}") or b""))
        except (ValueError, TypeError, RecursionError) as error:
            raise InputError(f"{base}/{name}: missing or not JSON") from error

    index = parsed("model_index.json")
    if not isinstance(index.get("_class_name"), str):
        raise InputError(f"{base}/model_index.json: names no pipeline (_class_name)")
    named = {name: v for name, v in index.items() if isinstance(v, list) and len(v) == 2 and v[0]}
    parts, tokens = {}, 512
    for name, (_, kind) in named.items():
        if name.startswith("tokenizer"):
            length = parsed(f"{name}/tokenizer_config.json").get("model_max_length", 512)
            tokens = int(length) if name == "tokenizer" else tokens
        else:
            suffix = "scheduler_config.json" if name == "scheduler" else "config.json"
            parts[name] = ModelPart(kind, parsed(f"{name}/{suffix}"))
    settings = {key: value for key, value in index.items() if key in ("boundary_ratio", "expand_timesteps")}
    return Blueprint(base, index["_class_name"], parts, tokens, settings)


def build(blueprint: Blueprint, precision: str = "float32") -> ModelFamily:
    """Return the family of a base on the meta device: every shape and type, no numbers, no memory.

    Args:
        precision: as in the generator's params; "half" takes the types of the family's hints.

    Raises:
        InputError: a pipeline that no family serves, or a part that cannot be built.
    """
    family = family_of(blueprint.pipeline, blueprint.base)
    modules: dict[str, Any] = {}
    for name, part in blueprint.parts.items():
        half = family.hints.vae if name == "vae" else family.hints.weights
        modules[name] = _part(part, half if precision == "half" else torch.float32)
    pipeline_class = getattr(diffusers, blueprint.pipeline)
    required, optional = pipeline_class._get_signature_keys(pipeline_class)
    names = sorted({*required, *optional})
    tokenizers = {name: _tokenizer(blueprint.prompt_tokens) for name in names if "tokenizer" in name}
    missing = {"transformer_2": None} if "transformer_2" in names else {}
    return family(pipeline_class(**{**missing, **modules, **tokenizers, **blueprint.config}))


def _part(part: ModelPart, dtype: torch.dtype) -> Any:
    try:
        if hasattr(diffusers, part.kind):
            kind = getattr(diffusers, part.kind)
            if not issubclass(kind, nn.Module):
                return kind.from_config(part.config)
            with torch.device("meta"):
                module = kind.from_config(part.config)
        else:
            kind = getattr(transformers, part.kind)
            with torch.device("meta"):
                module = kind(kind.config_class(**part.config))
    except (AttributeError, TypeError, ValueError, KeyError) as error:
        raise InputError(f"{part.kind}: cannot be built: {one_line(error)}") from error
    # As loading does it: transformers leaves these in float32 only where the type is float16.
    always = hasattr(diffusers, part.kind) or dtype == torch.float16
    keep = set((getattr(module, "_keep_in_fp32_modules", None) or ()) if always else ())
    for path, parameter in module.named_parameters():
        if not keep & set(path.split(".")):
            parameter.data = parameter.data.to(dtype)
    return module


def _tokenizer(tokens: int) -> PreTrainedTokenizerFast:
    """A tokenizer that says how long a prompt may be; it knows no words."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>")),
        unk_token="<unk>",
        pad_token="<unk>",
        model_max_length=tokens,
    )
