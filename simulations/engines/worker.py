"""The work of a worker process: the simulated sites' ClientApp, evaluation and caches, all kept warm.

A run folder named by the environment says which arms and sites there are; Flower passes nothing else to clients of
its own engine.
"""

import multiprocessing
import os
from collections.abc import Callable
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from flwr.app import Context
from numpy.typing import NDArray

from client.answer import Trainer
from client.app import build_client_app
from client.personal.training import Personal, WithoutNoise, personalise_without_privacy
from client.vault.records.held_out import GROUP
from client.vault.training.evaluator import exact_histogram, noisy_histogram
from client.vault.training.round_trainer import RoundTrainer, device_for
from shared.adapted_model.evaluation import evaluate
from shared.adapted_model.frozen_activations import FrozenActivations, activations_for
from shared.adapted_model.model import AdaptedModel, build
from shared.errors import DataError
from shared.privacy.releases import SharedCounts
from shared.private_evaluation.noise import evaluation_release
from shared.protocol.messages import TrainTask, Vector
from shared.records.ragged import Records, joined, load
from shared.study.secure_sum import sum_sizes
from shared.tasks.kind import Evidence
from simulations.engines.partition_query import with_partition_query
from simulations.experiment.arms import Arm, arm_folder, read_arm
from simulations.experiment.sites import Prepared, Site, reopen
from simulations.sites.measured import MeasuredSite, norms_file
from simulations.sites.seeded_randomness import SeededRandomnessForSimulation
from simulations.sites.summing import SummingSite
from simulations.sites.textbook import TextbookSite
from simulations.sites.troubled import TroubledSite
from simulations.sites.without_privacy import SiteWithoutPrivacy

RUN_FOLDER = "FEDVAULT_SIMULATION"
THREADS = "FEDVAULT_THREADS"
WARM_SITES = 256  # whose records and trainer a worker keeps open


class Seen(NamedTuple):
    """A site's predictions for its held-out records, beside the truth."""

    site: str
    evidence: list[Evidence]


def start_worker(folder: str, threads: int) -> None:
    """Prepare this process: signals, logs, threads, the run folder."""
    import logging
    import signal
    import threading

    from flwr.supercore.task_identity import TaskIdentity
    from transformers.utils import logging as transformers_logging

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=end_with_parent, daemon=True).start()
    os.environ[RUN_FOLDER], os.environ[THREADS] = folder, str(threads)
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("simulations").setLevel(logging.ERROR)  # the report says seeded and unprotected; once is enough
    torch.set_num_threads(threads)


def end_with_parent() -> None:
    """End with the parent: a run that was killed stops no worker, which would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def evaluate_sites(arm_name: str, site_indices: tuple[int, ...], adapter: Vector) -> list[Seen]:
    """Predict the held-out records of some sites with a global adapter. Exists in simulations only."""
    torch.set_num_threads(int(os.environ.get(THREADS, "1")))
    model, parts = _model(arm_name), _held_out(site_indices)
    model.load(adapter)
    activations = _activations(_arm(arm_name), model, joined(parts))
    tokens = _arm(arm_name).study.performance.micro_batch_tokens
    evidence = iter(
        evaluate(
            model, activations.records, tokens=tokens, batch_of=activations.batch, sizes=activations.sizes()
        ).evidence
    )
    return [
        Seen(_site(index).name, list(islice(evidence, int(part.usable.sum()))))
        for index, part in zip(site_indices, parts, strict=True)
    ]


class PersonalSite(NamedTuple):
    """What a site's own adapter predicts for its held-out records."""

    seen: Seen
    steps: int
    """That it took beyond the federated adapter: UNPROTECTED."""


def personal_site(arm_name: str, site_index: int, adapter: Vector) -> PersonalSite:
    """Train a finished adapter further at one site WITHOUT PRIVACY, as its node would for itself, and evaluate it."""
    torch.set_num_threads(int(os.environ.get(THREADS, "1")))
    arm, model, site = _arm(arm_name), _model(arm_name), _site(site_index)
    try:
        personal = personalise_without_privacy(
            arm.study,
            model,
            load(_prepared().train_path(site)),
            adapter,
            declared_size=site.declared_size,
            randomness=SeededRandomnessForSimulation(arm.seed, "personal", site.name, 0),
            activations=partial(_activations, arm, model),
        )
    except DataError:  # too few records: such a site uses the adapter as it came
        personal = Personal(adapter, 0, 0)
    (seen,) = evaluate_sites(arm_name, (site_index,), personal.adapter)
    return PersonalSite(seen, personal.steps)


def noisy_counts(arm_name: str, site_index: int, number: int, adapter: Vector) -> NDArray[np.int64]:
    """Count a site's held-out units with an adapter, and put a node's noise on the counts, but from the seed."""
    torch.set_num_threads(int(os.environ.get(THREADS, "1")))
    arm, model, site = _arm(arm_name), _model(arm_name), _site(site_index)
    model.load(adapter)
    records = load(_prepared().evaluation_path(site))
    exact = exact_histogram(arm.study, model, records, records[GROUP].values)
    context, noise_seed = (arm.random_stream, site.name, "evaluation", number), arm.evaluation_noise_seed
    randomness = SeededRandomnessForSimulation(arm.seed, *context, noise_seed=noise_seed)
    release = evaluation_release(arm.study)
    if isinstance(release, SharedCounts):
        sizes = sum_sizes(len(arm.site_indices), arm.study.federation)
        release = release.with_nodes(sizes.nodes, sizes.threshold, sizes.colluders)
    return noisy_histogram(exact, release, randomness.step())


def build_training_cache(arm_name: str, site_index: int) -> None:
    """Compute the frozen activations of a site's records once, before anything is timed as training."""
    torch.set_num_threads(int(os.environ.get(THREADS, "1")))
    _activations(_arm(arm_name), _model(arm_name), load(_prepared().train_path(_site(site_index))))


def build_evaluation_cache(arm_name: str, site_indices: tuple[int, ...]) -> None:
    """Compute the frozen activations of the held-out records of sites that are evaluated together."""
    torch.set_num_threads(int(os.environ.get(THREADS, "1")))
    _activations(_arm(arm_name), _model(arm_name), joined(_held_out(site_indices)))


def open_site(context: Context, task: TrainTask) -> Trainer:
    """Return the simulated site that a task is for; its `study_run` names the arm."""
    torch.set_num_threads(int(os.environ.get(THREADS, "1")))
    partition = int(context.node_config["partition-id"])
    arm = _arm(task.study_run)
    return _warm(task.study_run)(arm.site_indices if arm.pooled else (arm.site_indices[partition],))


@lru_cache(maxsize=1)
def _warm(arm_name: str) -> Callable[[tuple[int, ...]], Trainer]:
    """Open sites of an arm and keep them; those of another arm, and its model, are dropped."""
    return lru_cache(maxsize=WARM_SITES)(partial(_open, arm_name))


def _open(arm_name: str, site_indices: tuple[int, ...]) -> Trainer:
    site = _made(arm_name, site_indices)
    if not _arm(arm_name).keeps_norms:
        return site
    return MeasuredSite(site, norms_file(arm_folder(_folder(), arm_name), site_indices[0]))


def _made(arm_name: str, site_indices: tuple[int, ...]) -> Trainer:
    arm, sites, prepared = _arm(arm_name), [_site(index) for index in site_indices], _prepared()
    model, size = _model(arm_name), sum(site.declared_size for site in sites)
    trouble, poison = arm.trouble, arm.trouble and arm.trouble.poison_of(sites[0].name)
    path_of = prepared.flipped_path if poison == "flipped-labels" else prepared.train_path
    parts = [load(path_of(site)) for site in sites]
    records = parts[0] if len(parts) == 1 else joined(parts)
    place = "+".join(site.name for site in sites)

    def seeded(round_number: int) -> SeededRandomnessForSimulation:
        context = (arm.random_stream, place, round_number)
        return SeededRandomnessForSimulation(arm.seed, *context, drawn=arm.noise_length, noise_seed=arm.noise_seed)

    def without_noise(round_number: int) -> WithoutNoise:
        return WithoutNoise(seeded(round_number))

    if not arm.protected:
        activations = _activations(arm, model, records)
        unclipped = arm.recipe == "unclipped"
        return SiteWithoutPrivacy(
            arm.study, model, activations, declared_size=size, randomness=seeded, unclipped=unclipped
        )
    vault = TextbookSite if arm.recipe == "textbook" else RoundTrainer
    summing = arm.study.federation.secure_sum is not None
    site = (SummingSite if summing else vault)(
        arm.study,
        model,
        records,
        declared_size=size,
        randomness=without_noise if poison == "noise-free-update" else seeded,
        cache=_folder() / "cache",
        verdicts=_folder() / "cache" / "verdicts",
    )
    if isinstance(site, SummingSite):
        site.share_noise_with(sum_sizes(len(arm.site_indices), arm.study.federation))
    if trouble is not None:
        deadline_s = arm.study.federation.deadline_s
        factor = trouble.poison_factor if poison == "scaled-update" else 1.0
        loses = partial(trouble.loses, place, seed=arm.seed, deadline_s=deadline_s)
        return TroubledSite(site, loses, factor=factor)
    return site


def _held_out(site_indices: tuple[int, ...]) -> list[Records]:
    return [load(_prepared().holdout_path(_site(index))) for index in site_indices]


def _activations(arm: Arm, model: AdaptedModel, records: Records) -> FrozenActivations:
    device = next(model.parameters()).device
    return activations_for(model, records, device, arm.study.performance, _folder() / "cache")


@lru_cache(maxsize=2)
def _model(arm_name: str) -> AdaptedModel:
    study = _arm(arm_name).study
    return build(study).to(device_for(study.performance.device))


@lru_cache(maxsize=64)
def _arm(name: str) -> Arm:
    return read_arm(_folder(), name)


@lru_cache(maxsize=1)
def _prepared() -> Prepared:
    return reopen(_folder() / "prepared")


def _site(index: int) -> Site:
    return _sites()[index]


@lru_cache(maxsize=1)
def _sites() -> dict[int, Site]:
    return {site.index: site for site in (*_prepared().sites, *_prepared().evaluated)}


def _folder() -> Path:
    return Path(os.environ[RUN_FOLDER])


app = with_partition_query(build_client_app(open_site))
