"""Every parser of outside data, with valid examples of what it reads."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from components.alignment.ledger import reader as reading
from components.corpus.dataset import ClipRecord, Corpus, write_corpus
from components.corpus.prompts import Prompt, read_prompts
from components.evaluation.dimensions.names import QUALITY, SEMANTIC
from components.evaluation.models import fetch
from components.evaluation.models.preprocessing import Preparation
from components.evaluation.vbench.files import PER_VIDEO_SCALE, read_results
from components.evaluation.vbench.sample_record import read_record
from components.evaluation.vbench.suites import INFO, load_suite
from components.evaluation.vbench.totals import totals
from components.params import load_params
from components.planning.blueprints import blueprint_of
from components.registry.gate.champion import difference, read_rows, same_requests
from components.reward.ladders import ladder, replay
from components.reward.scoring.trained import TrainedReward
from components.runtime.artifacts.artifact import open_artifact
from components.runtime.artifacts.checkpoints import Checkpointer
from components.runtime.artifacts.publish import publish
from components.runtime.gate.thresholds import SHIPPED, load_gate
from components.runtime.params import StepParams
from components.video.codec import read_video
from components.video.decode.container import probe
from pipelines.compiler.profile import load_profile
from pipelines.container.executor_io import ExecutorInput
from pipelines.lint.lint import findings
from pipelines.trainjob.settings import parse_settings
from pipelines.yaml_files import read_documents
from tests.alignment.ledger.made import PROMPTS, group, write
from tests.fuzz.harness import Parser
from tests.fuzz.listing import LISTING, download
from tests.fuzz.mutation import bytes_turned, json_turned, lines_turned, tensors_turned
from tests.reward.conftest import write_reward
from tests.video.files import drifting_clip, encode

Read = Callable[[bytes, Path], object]
GOLDEN = Path(__file__).resolve().parents[1] / "pipelines" / "golden" / "miniature-cpu.yaml"


def texts(*values: Any) -> Callable[[Path], list[bytes]]:
    """JSON texts of values, which are YAML as well."""
    return lambda folder: [json.dumps(value).encode() for value in values]


def of_file(name: str, read: Callable[[Path], object]) -> Read:
    """Reads the bytes as a file of that name."""

    def wrapped(data: bytes, folder: Path) -> object:
        (folder / name).write_bytes(data)
        return read(folder / name)

    return wrapped


def suite(path: Path) -> object:
    return load_suite(str(path))


def profile(path: Path) -> object:
    return load_profile(str(path))


# -- params, gates, profiles, pipelines ----------------------------------------------------------------------

PARAMS = {
    "run": {"seed": 3, "device": "cpu"},
    "corpus": {"sources": ["world"], "world_clips": {"train": 4, "val": 2, "test": 2}},
    "alignment": {"iterations": 3, "num_generations": 2, "guards": {"every": 0}, "keep_latents": "all"},
    "reward": {"training": {"steps": 10}, "gate": {"srcc_world": -1}},
    "evaluation": {"prompts": 4},
}


def settings_read(data: bytes, folder: Path) -> object:
    return load_params(None, [data.decode("utf-8", "surrogateescape")])


def gate_examples(folder: Path) -> list[bytes]:
    import yaml

    return [json.dumps(yaml.safe_load(SHIPPED.read_bytes())).encode()]


def pipeline_examples(folder: Path) -> list[bytes]:
    """The compiled pipeline, cut down to what YAML's slow reader gets through in no time."""
    documents = read_documents(GOLDEN, "pipeline")
    return [json.dumps(documents[0]).encode()]


def pipeline_read(path: Path) -> object:
    return findings(read_documents(path, "pipeline"), "pipeline")


# -- artifacts -----------------------------------------------------------------------------------------------


def manifest_examples(folder: Path) -> list[bytes]:
    with publish(folder / "made", step="corpus", params=StepParams()) as workspace:
        (workspace.dir / "a").mkdir()
        (workspace.dir / "a" / "b.txt").write_text("b")
        workspace.write_metrics({"figure": 1.0})
    return [(folder / "made" / "manifest.json").read_bytes()]


def manifest_read(data: bytes, folder: Path) -> object:
    (folder / "a").mkdir()
    (folder / "a" / "b.txt").write_text("b")
    (folder / "metrics.json").write_text('{\n  "figure": 1.0\n}\n')
    (folder / "manifest.json").write_bytes(data)
    return open_artifact(folder, step="corpus").metrics()


CORPUS_FILES = ("corpus.json", "clips/index.jsonl", "prompts.jsonl", "clips/train.safetensors")


def corpus_of(name: str) -> tuple[Callable[[Path], list[bytes]], Read]:
    """A corpus with one file turned, its manifest as if somebody had made it so."""

    def fill(folder: Path) -> None:
        header = {"fps": 8.0, "frames": 2, "height": 4, "width": 4}
        clips = [
            (
                ClipRecord("c", "world", "world/c/1", "train", "a cat"),
                torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
            )
        ]
        write_corpus(folder, header, clips, [Prompt("a", "a cat", "train"), Prompt("b", "a dog", "heldout")])

    def examples(folder: Path) -> list[bytes]:
        fill(folder)
        return [(folder / name).read_bytes()]

    def read(data: bytes, folder: Path) -> object:
        with publish(folder / "c", step="corpus", params=StepParams()) as workspace:
            fill(workspace.dir)
            (workspace.dir / name).write_bytes(data)
            workspace.write_metrics({})
        corpus = Corpus.open(folder / "c")
        return corpus.clips("train", "world"), corpus.prompts("heldout")

    return examples, read


def ledger_examples(folder: Path) -> list[bytes]:
    from components.alignment.ledger import LedgerWriter

    writer = LedgerWriter(folder / "parts")
    write(writer, 0, [group(prompt, [0.1, 0.9, 0.4]) for prompt in PROMPTS])
    (folder / "whole").mkdir()
    writer.publish(folder / "whole", 1)
    return [(folder / "whole" / "ledger.parquet").read_bytes()]


def ledger_read(path: Path) -> object:
    rows = reading.read_rows(path)
    assert isinstance(rows, list)
    return rows


def scorer_examples(name: str) -> Callable[[Path], list[bytes]]:
    return lambda folder: [(write_reward(folder / "reward") / name).read_bytes()]


def scorer_read(name: str) -> Read:
    kept: dict[str, bytes] = {}

    def read(data: bytes, folder: Path) -> object:
        if not kept:
            write_reward(folder / "made")
            kept.update({n: (folder / "made" / n).read_bytes() for n in ("config.json", "model.safetensors")})
        for one, content in {**kept, name: data}.items():
            (folder / one).write_bytes(content)
        scorer = TrainedReward.load(folder)
        size = scorer.geometry
        if size.frames * size.height * size.width > 100_000:
            return scorer  # larger clips take more than a case may, as they say
        return scorer.score(torch.zeros(1, 5, 3, 32, 32, dtype=torch.uint8), 8.0)

    return read


def replay_examples(folder: Path) -> list[bytes]:
    count = 4
    table = {name: torch.zeros(count, 2) for name in ladder.TENSORS if name != "frames"}
    about = {name: json.dumps([["a"]] * count) for name in ladder.NAMES}
    return [save({name: value.half() for name, value in table.items()}, about)]


# -- video ---------------------------------------------------------------------------------------------------


def video_examples(folder: Path) -> list[bytes]:
    clip = drifting_clip()
    clip = type(clip)(clip.frames[:6, :, :32, :48].contiguous(), clip.fps)
    kinds = (("a.mp4", "libx264"), ("b.mkv", "mpeg4"), ("c.avi", "mpeg4"), ("d.webm", "libvpx"))
    return [encode(clip, folder / name, codec=codec).read_bytes() for name, codec in kinds]


def video_read(path: Path) -> object:
    # A small bound on the pixels stands for the real one, so that a case's memory can be bounded as well.
    probe(path)
    return read_video(path, max_pixels=20_000_000)


# -- evaluation ----------------------------------------------------------------------------------------------

RESULTS = {
    name: [
        0.9 - 0.01 * place,
        [
            {
                "video_path": f"videos/a cat-{place}.mp4",
                "video_results": 0.5 * PER_VIDEO_SCALE.get(name, 1.0),
                "method": "x",
            }
        ],
    ]
    for place, name in enumerate(QUALITY + SEMANTIC)
}
SUITE = [
    {"prompt_en": "a cat", "dimension": ["color", "scene"], "auxiliary_info": {"color": {"color": "red"}}},
    {"prompt_en": "a dog", "dimension": ["temporal_flickering"]},
]
ROWS = [
    {"prompt_id": f"p{n // 2}", "prompt": "a cat", "index": n % 2, "seed": n, "base": {"judge": 0.1},
     "aligned": {"judge": 0.5 + n / 10, "reward": None}}
    for n in range(6)
]  # fmt: skip


def lines(folder: Path) -> list[bytes]:
    return ["".join(json.dumps(row) + "\n" for row in ROWS).encode()]


def pairs_read(data: bytes, folder: Path) -> object:
    rows, sound = read_rows(data, "pairs.jsonl"), read_rows(lines(folder)[0], "champion")
    return difference(rows, sound, "judge"), same_requests(rows, sound)


def totals_read(path: Path) -> object:
    raw = read_results(path, with_videos=False)
    return totals({name: one.score for name, one in raw.items()})


def wheel_examples(folder: Path) -> list[bytes]:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(INFO, json.dumps(SUITE))
    return [stream.getvalue()]


def record_read(data: bytes, folder: Path) -> object:
    (folder / "samples.jsonl").write_bytes(data)
    return read_record(folder)


def card_read(data: bytes, folder: Path) -> object:
    (folder / "dino").mkdir()
    (folder / "dino" / "config.json").write_text("{}")
    (folder / "dino" / "weights.json").write_bytes(data)
    return fetch.verify("dino", str(folder))


CARD = {"name": "dino", "origin": "x/y", "files": {"config.json": {"bytes": 2, "sha256":
        "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}}}  # fmt: skip
PREPARED = {
    "size": {"height": 224, "width": 224}, "crop_size": {"height": 224, "width": 224}, "resample": 3,
    "rescale_factor": 0.0039, "do_normalize": True, "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
    "do_center_crop": True,
}  # fmt: skip


def prepared_read(data: bytes, folder: Path) -> object:
    (folder / "preprocessor_config.json").write_bytes(data)
    return Preparation.read(folder)


# -- models --------------------------------------------------------------------------------------------------

INDEX = {
    "_class_name": "WanPipeline", "_diffusers_version": "0.1",
    "transformer": ["diffusers", "WanTransformer3DModel"],
    "tokenizer": ["transformers", "T5TokenizerFast"], "scheduler": ["diffusers", "UniPCMultistepScheduler"],
}  # fmt: skip


def base_read(data: bytes, folder: Path) -> object:
    for part in ("transformer", "tokenizer", "scheduler"):
        (folder / part).mkdir()
    (folder / "transformer" / "config.json").write_text('{"num_layers": 1}')
    (folder / "scheduler" / "scheduler_config.json").write_text("{}")
    (folder / "tokenizer" / "tokenizer_config.json").write_text('{"model_max_length": 512}')
    (folder / "model_index.json").write_bytes(data)
    return blueprint_of(str(folder))


# -- checkpoints ---------------------------------------------------------------------------------------------


def checkpoint_of(name: str) -> tuple[Callable[[Path], list[bytes]], Read]:
    def examples(folder: Path) -> list[bytes]:
        made = Checkpointer(folder).save(3, {"w": torch.arange(6.0)}, {"losses": [0.5, 0.25]})
        return [(made / name).read_bytes()]

    def read(data: bytes, folder: Path) -> object:
        made = Checkpointer(folder).save(3, {"w": torch.arange(6.0)}, {"losses": [0.5, 0.25]})
        whole = (made / name).read_bytes() == data
        (made / name).write_bytes(data)
        found = Checkpointer(folder).latest()
        # Whatever was not written by us is passed over: work then begins anew.
        assert whole or found is None or torch.equal(found.tensors["w"], torch.arange(6.0))
        return found

    return examples, read


MESSAGE = {
    "inputs": {"parameterValues": {"params": "{}", "step": "corpus"}, "artifacts": {"corpus": {"artifacts": [
        {"name": "a", "uri": "s3://bucket/a", "metadata": {}}]}}},
    "outputs": {"artifacts": {"out": {"artifacts": [{"name": "o", "uri": "s3://bucket/o"}]}},
                "outputFile": "/tmp/o"},
}  # fmt: skip


def message_read(data: bytes, folder: Path) -> object:
    given = ExecutorInput.parse(data.decode("utf-8", "replace"))
    return given.text("step"), given.json("params"), given.input("corpus"), given.output("out")


def job_read(data: bytes, folder: Path) -> object:
    return parse_settings(data.decode("utf-8", "replace"))


JOB = {
    "image": f"registry.example/x@sha256:{'a' * 64}",
    "nodes": 2,
    "env": {"A": "b"},
    "timeout_minutes": 5,
    "queue": "team",
    "runtime": "onlinevpo-torch",
}


PROFILE = {"description": "x", "params": {"run": {"seed": 1}}, "steps": {"reward": {"gpus": 1}}}
SETTINGS = [b"alignment.iterations=3", b"corpus.sources=[world, packaged]"]
SAMPLES = [b'{"file": "a-0.mp4", "seed": 1}\n{"file": "b-0.mp4"}\n']
PROMPT_OBJECTS = {"prompts": [{"prompt": "a cat"}, {"prompt": "ein Hund é"}]}
PROMPT_TABLE = ['prompt,seed\n"a cat, running",1\nein Hund é,2\n'.encode()]
PROMPT_LIST = ["a cat\n\nein Hund é\n日本\n".encode()]


def parsers() -> list[Parser]:
    """All of them, in the order of the table."""
    corpus_turns = (json_turned, lines_turned, lines_turned, tensors_turned)
    config, tensors = "config.json", "model.safetensors"
    return [
        Parser("params file", texts(PARAMS), of_file("params.yaml", load_params), json_turned, 2.0),
        Parser("--set", lambda _: SETTINGS, settings_read, bytes_turned),
        Parser("gate file", gate_examples, of_file("gate.yaml", load_gate), json_turned),
        Parser("profile", texts(PROFILE), of_file("p.yaml", profile), json_turned),
        Parser("pipeline (lint)", pipeline_examples, of_file("p.yaml", pipeline_read), json_turned, 0.3),
        Parser("TrainJob settings", texts(JOB), job_read, json_turned),
        Parser("executor input", texts(MESSAGE), message_read, json_turned),
        Parser("prompt list", lambda _: PROMPT_LIST, of_file("p.txt", read_prompts), bytes_turned),
        Parser(
            "prompt list (JSON)", texts(PROMPT_OBJECTS), of_file("p.json", read_prompts), json_turned, 0.3
        ),
        Parser(
            "prompt list (YAML)", texts(PROMPT_OBJECTS), of_file("p.yaml", read_prompts), json_turned, 0.3
        ),
        Parser(
            "prompt list (CSV)", lambda _: PROMPT_TABLE, of_file("p.csv", read_prompts), bytes_turned, 0.3
        ),
        Parser("video", video_examples, of_file("v.mp4", video_read), bytes_turned, 2.0),
        Parser("VBench results", texts(RESULTS), of_file("r.json", read_results), json_turned),
        Parser("totals", texts(RESULTS), of_file("r.json", totals_read), json_turned),
        Parser("suite JSON", texts(SUITE), of_file("s.json", suite), json_turned),
        Parser("suite text", lambda _: [b"a cat\n# no\na dog\n"], of_file("s.txt", suite), bytes_turned),
        Parser("suite wheel (archive)", wheel_examples, of_file("s.whl", suite), bytes_turned),
        Parser("samples.jsonl", lambda _: SAMPLES, record_read, lines_turned),
        Parser("pairs.jsonl", lines, pairs_read, lines_turned),
        Parser("artifact manifest", manifest_examples, manifest_read, json_turned, 2.0),
        Parser(
            "pair ledger (Parquet)", ledger_examples, of_file("l.parquet", ledger_read), bytes_turned, 2.0
        ),
        Parser("checkpoint state", *checkpoint_of("state.json"), json_turned),
        Parser("checkpoint tensors", *checkpoint_of("tensors.safetensors"), tensors_turned),
        *(
            Parser(f"corpus: {name}", *corpus_of(name), turn)
            for name, turn in zip(CORPUS_FILES, corpus_turns, strict=True)
        ),
        Parser("reward config", scorer_examples(config), scorer_read(config), json_turned),
        Parser("reward tensors", scorer_examples(tensors), scorer_read(tensors), tensors_turned),
        Parser("replay tensors", replay_examples, of_file("r.safetensors", replay._read), tensors_turned),
        Parser("weights card", texts(CARD), card_read, json_turned),
        Parser("image preparation", texts(PREPARED), prepared_read, json_turned),
        Parser("base (model_index.json)", texts(INDEX), base_read, json_turned),
        Parser("S3 listing", lambda _: [LISTING], download, bytes_turned, 0.5),
    ]
