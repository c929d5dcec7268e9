"""A profile's placement on a task of the pipeline: resources, nodes, environment, patience, user."""

from __future__ import annotations

from collections.abc import Mapping

from kfp import kubernetes
from kfp.dsl import PipelineTask

from pipelines.compiler.profile import Placement, Profile, Resources
from pipelines.container.entrypoint import RUN_VARIABLE
from pipelines.trainjob.settings import QUEUE_LABEL, USER, TrainJobSettings

#: The label with the run's id that Kubeflow puts on every pod.
RUN_LABEL = "pipeline/runid"

# What the retry window leaves for waiting, in queues and between attempts. It counts from the first attempt's
# start, running time included: kfp's default of an hour would end a second attempt, or forbid it, where the
# first one had worked for longer.
_WAITING_SECONDS = 30 * 24 * 3600
# For bringing a TrainJob's inputs and results to and fro.
_TRANSFER_MINUTES = 60


def place_step(task: PipelineTask, profile: Profile, place: Placement) -> None:
    """A step in its own pod: its GPUs, its nodes, its queue."""
    _place(task, profile, place, place, place.timeout_minutes)
    if place.gpus:
        task.set_accelerator_type(place.gpu_resource).set_accelerator_limit(place.gpus)
    if profile.queue:
        kubernetes.add_pod_label(task, QUEUE_LABEL, profile.queue)
    _choose_nodes(task, place)


def place_launcher(task: PipelineTask, profile: Profile, place: Placement) -> None:
    """The pod that creates and follows a TrainJob: small, without GPUs, alive while the job queues.

    It joins no queue itself: it would hold a share of the quota that its own job is waiting for.
    """
    minutes = place.queue_minutes + place.timeout_minutes + _TRANSFER_MINUTES
    _place(task, profile, profile.launcher, place, minutes)


def place_finish(task: PipelineTask, profile: Profile, place: Placement) -> None:
    """The exit handler: it joins no queue, so that the report comes at once, and never from the cache."""
    _place(task, profile, place, place, place.timeout_minutes)
    _choose_nodes(task, place)
    task.set_caching_options(False)


def trainjob_settings(image: str, profile: Profile, place: Placement) -> TrainJobSettings:
    """What the launcher needs to know of a step's TrainJob."""
    shared = TrainJobSettings.model_fields.keys() & Placement.model_fields.keys()
    return TrainJobSettings(
        image=image,
        queue=profile.queue,
        secrets=profile.secrets,
        config_maps=profile.config_maps,
        queue_timeout_minutes=place.queue_minutes,
        **{name: getattr(place, name) for name in shared},
    )


def _place(
    task: PipelineTask, profile: Profile, resources: Resources, patience: Placement, minutes: int
) -> None:
    """What every task needs, whatever it does."""
    task.set_cpu_request(resources.cpu).set_cpu_limit(resources.cpu)
    task.set_memory_request(resources.memory).set_memory_limit(resources.memory)
    task.set_retry(
        patience.retries,
        backoff_duration=f"{patience.retry_delay_seconds}s",
        backoff_factor=2.0,
        backoff_max_duration=f"{(patience.retries + 1) * minutes * 60 + _WAITING_SECONDS}s",
    )
    kubernetes.set_timeout(task, minutes * 60)
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    kubernetes.set_image_pull_policy(task, profile.image_pull_policy)
    if profile.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(profile.image_pull_secrets))
    for name, path, medium, size in (
        ("shared-memory", "/dev/shm", "Memory", resources.shared_memory),
        ("cache", "/cache", None, resources.cache),
        ("tmp", "/tmp", None, resources.cache),
    ):
        kubernetes.empty_dir_mount(task, name, path, medium, size)
    for source in profile.secrets:
        for keys in _by_key(source.env):
            kubernetes.use_secret_as_env(task, source.name, keys)
    for source in profile.config_maps:
        for keys in _by_key(source.env):
            kubernetes.use_config_map_as_env(task, source.name, keys)
    kubernetes.use_field_path_as_env(task, RUN_VARIABLE, f"metadata.labels['{RUN_LABEL}']")


def _choose_nodes(task: PipelineTask, place: Placement) -> None:
    for key, value in sorted(place.node_selector.items()):
        kubernetes.add_node_selector(task, key, value)
    for toleration in place.tolerations:
        kubernetes.add_toleration(task, **toleration.model_dump())


def _by_key(env: Mapping[str, str]) -> list[dict[str, str]]:
    """Variable -> key turned into maps of key -> variable, several where variables share a key."""
    maps: list[dict[str, str]] = []
    for variable, key in sorted(env.items()):
        free = next((known for known in maps if key not in known), None)
        if free is None:
            maps.append(free := {})
        free[key] = variable
    return maps
