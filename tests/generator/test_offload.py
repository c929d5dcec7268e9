"""Text encoders and VAE come for their work and go; the GPU is played by copies in the same memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from components.generator import offload as offloading
from components.generator.generator import Generator, load_family
from components.generator.offload import at_work, place
from components.generator.params import SamplingParams
from tests.alignment.tiny import save_tiny

PROMPT = "a red circle moving left slowly on a grey background"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("offload") / "pipeline")


class Elsewhere:
    """A device that no tensor lies on, so that everything has to travel to it."""

    type = "cuda"

    def __eq__(self, other: object) -> bool:
        return other is self

    def __hash__(self) -> int:
        return 0


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.Tensor]]:
    """Every tensor that was copied to a device."""
    made: list[torch.Tensor] = []

    def copy(tensor: torch.Tensor, device: object) -> torch.Tensor:
        made.append(tensor.clone())
        return made[-1]

    monkeypatch.setattr(offloading, "_copied", copy)
    yield made


def test_parts_work_on_copies_and_rest_where_they_were(copied: list[torch.Tensor]) -> None:
    part = nn.BatchNorm1d(3)
    tensors = [*part.parameters(), *part.buffers()]
    homes = [tensor.data_ptr() for tensor in tensors]
    with pytest.raises(RuntimeError, match="out of memory"), at_work([part, None], Elsewhere()):  # type: ignore[arg-type]
        assert [tensor.data_ptr() for tensor in tensors] == [tensor.data_ptr() for tensor in copied]
        raise RuntimeError("out of memory")
    assert [tensor.data_ptr() for tensor in tensors] == homes
    with at_work([part], torch.device("cpu")):
        assert [tensor.data_ptr() for tensor in tensors] == homes


def test_only_what_computes_all_the_time_is_put_on_a_gpu(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = load_family(folder, torch.device("cpu")).pipeline
    names = {id(part): name for name, part in pipeline.components.items()}
    moved: list[str] = []
    monkeypatch.setattr(nn.Module, "to", lambda self, device: moved.append(names[id(self)]))
    place(pipeline, ("text_encoder", "vae"), torch.device("cuda"))
    assert moved == ["transformer"]
    moved.clear()
    place(pipeline, ("text_encoder", "vae"), torch.device("cpu"))
    assert sorted(moved) == ["text_encoder", "transformer", "vae"]


def test_each_part_is_fetched_for_its_own_work_only(
    folder: Path, copied: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SamplingParams(num_frames=5, height=16, width=16, steps=2, batch=2)
    generator = Generator(load_family(folder, torch.device("cpu")), settings)
    pipeline = generator.family.pipeline
    expected = generator.sample([PROMPT], [1])[0]
    encoded = Generator(generator.family, settings)
    seen: list[int] = []

    def elsewhere(parts: list[nn.Module], device: object) -> object:
        seen.append(sum(1 for _ in parts))
        return at_work(parts, Elsewhere())  # type: ignore[arg-type]

    monkeypatch.setattr("components.generator.generator.at_work", elsewhere)
    monkeypatch.setattr("components.generator.families.base.at_work", elsewhere)
    count = {
        name: len([*part.parameters(), *part.buffers()])
        for name, part in (("text", pipeline.text_encoder), ("vae", pipeline.vae))
    }
    embeddings = encoded.embeddings([PROMPT, PROMPT])
    assert len(copied) == count["text"]
    assert torch.equal(encoded.embeddings([PROMPT])[0], embeddings[1])
    assert len(copied) == count["text"]  # kept: the encoder did not come again
    latents = encoded.sample_latents([PROMPT, "a blue square"], [1, 2])[:1]
    before = len(copied)
    assert before == 2 * count["text"]  # once for the other prompt and the empty one together
    assert torch.equal(encoded.decode(latents), expected)
    assert len(copied) - before == count["vae"]


def test_kept_embeddings_do_not_fill_the_host(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = SamplingParams(num_frames=5, height=16, width=16, steps=2)
    generator = Generator(load_family(folder, torch.device("cpu")), settings)
    prompts = [f"a {colour} circle" for colour in ("red", "green", "blue", "yellow")]
    first = generator.embeddings(prompts)
    size = first[0].numel() * first.element_size()
    monkeypatch.setattr("components.generator.generator.KEPT_BYTES", 2 * size)
    fewer = Generator(generator.family, settings)
    assert torch.equal(
        fewer.embeddings(prompts), first
    )  # what is asked for at once is there, whatever it takes
    assert len(fewer._embeddings) == 4
    fewer.embeddings(["a white square"])
    assert list(fewer._embeddings) == [prompts[3], "a white square"]
    assert torch.equal(fewer.embeddings(prompts[:1]), first[:1])
