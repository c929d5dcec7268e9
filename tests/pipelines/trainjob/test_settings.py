"""The --job JSON: what the compiler writes is what the launcher reads; faults are named."""

from __future__ import annotations

import subprocess
import sys

import pytest

from components.runtime.errors import InputError
from pipelines.trainjob.settings import Toleration, TrainJobSettings, parse_settings

FULL = TrainJobSettings(
    image="registry.example/onlinevpo-model@sha256:" + "a" * 64,
    nodes=4,
    gpus=8,
    tolerations=(Toleration(key="gpu", operator="Exists", effect="NoSchedule"),),
    queue="training",
    node_selector={"gpu": "h100"},
)


def test_round_trip() -> None:
    assert parse_settings(FULL.model_dump_json()) == FULL


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nodes: 2", ("--job", "not readable as JSON")),
        ("[]", ("--job", "JSON object", "list")),
        ('{"image": "x", "nodes": 0}', ("--job.nodes = 0", "greater than or equal to 1")),
        ('{"image": "x", "nodes": 2, "memmory": "4Gi"}', ("--job.memmory", "did you mean `memory`")),
        ('{"image": "x", "nodes": 2, "memory": "4 GB"}', ("--job.memory", "4 GB")),
        ('{"nodes": 2}', ("--job.image", "required")),
        ('{"image": "x", "nodes": 2, "queue": "My Queue"}', ("--job.queue", "My Queue")),
    ],
)
def test_faults(text: str, words: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        parse_settings(text)
    assert all(word in str(caught.value) for word in words), caught.value


def test_needs_no_kubernetes() -> None:
    """The compiler imports it where neither kubernetes nor the trainer's models are installed."""
    code = (
        "import sys, pipelines.trainjob.settings; "
        "heavy = {'kubernetes', 'kubeflow_trainer_api', 'kfp', 'torch', 'boto3'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
