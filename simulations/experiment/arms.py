"""The arms of a scenario: the study itself, and its baselines."""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from shared.adapted_model.model import layout_of
from shared.errors import SettingsError
from shared.files import write_atomically
from shared.study.declaration import Study, recorded
from simulations.experiment.scenario import Scenario, Simulation
from simulations.experiment.sites import Site
from simulations.experiment.trouble import Trouble

UNROUNDED = {"wire": "float32"}
"""For arms that have no noise, or whose optimizer makes another of it: an encoding's steps are those of SGD's noise."""
OWN_SIZE = {"typical_size": None}
"""For arms of one site, and for Adam, which takes no notice of a divisor."""
NO_SUM = {"secure_sum": None, "threshold": None, "colluders": None}
"""For arms of one site, and of sites that each add the whole noise."""
SINGLE_SITE_STREAM, POOLED_STREAM = "site-alone", "central"
"""Names that never change: batches and noise of these arms follow from them."""
UNCLIPPED_RATE = 4.0
HEAD_ONLY = {"method": "head-only", "rank_pattern": {}, "rank_stabilized": False}
NO_HEAD_APART = "the study trains nothing but a head, or none"
WHY_LEFT_OUT = {
    "majority": "the task has no one answer for all",
    "head-federated": NO_HEAD_APART,
    "head-without-privacy": NO_HEAD_APART,
    "untroubled": "nothing befalls the study, [simulation.trouble] is empty",
    "local-noise": 'noise is shared under secure_sum = "shared" alone',
}


@dataclass(frozen=True)
class Arm:
    """A way of training that a scenario compares."""

    name: str
    title: str
    study: Study
    site_indices: tuple[int, ...]
    protected: bool
    seed: int
    recipe: str = "own"
    """`own`, `textbook`, or `unclipped`, which is without privacy: what its sites train by."""
    pooled: bool = False
    """Whether all its sites' records are in one place."""
    stream: str = ""
    """Names its random stream; default: its own name. Arms of one stream train on the same batches, and have the same
    noise where they train the same entries: what they differ by is then what they do, not what they drew."""
    noise_seed: int | None = None
    """Of noise and rounding; default: `seed`, which is also of batches."""
    evaluation_noise_seed: int | None = None
    """Of the noise of private evaluations; default: `seed`, also where that of noise is another one, as it always was
    in runs that set no seed of noise."""
    trouble: Trouble | None = None
    """What befalls its sites and its server on purpose."""
    keeps_norms: bool = False
    """Whether the length of each update is written down."""
    noise_length: int = 0
    """Numbers of noise that are drawn at once, where arms of one stream train adapters of different length."""

    @property
    def random_stream(self) -> str:
        """The name that its batches and noise follow from."""
        return self.stream or self.name


def trained_arms(scenario: Scenario, sites: tuple[Site, ...]) -> list[Arm]:
    """Return the arms that a scenario trains, in the order in which they run."""
    study, simulation = scenario.as_study(), scenario.simulation
    wanted, seed, all_sites = simulation.arms, simulation.seed_of("batches"), tuple(site.index for site in sites)
    arms = []
    head_only, layout = None, layout_of(study)
    if study.adapter.method != "head-only" and any(name.startswith("head.") for name, _ in layout.tensors):
        head_only = changed(study, adapter=HEAD_ONLY, federation={"aggregation": "ffa"})
    entries = layout.length
    if "head-federated" in wanted and head_only:
        title, stream = "head alone", "federated"
        arms.append(Arm("head-federated", title, head_only, all_sites, True, seed, stream=stream, noise_length=entries))
    single = changed(study, federation={"quorum": 1, **OWN_SIZE, **NO_SUM})
    if "single-site" in wanted:
        largest, training = _largest(sites), study.training
        rates = {
            "learning_rate": simulation.single_site_learning_rate or training.learning_rate,
            "adapter_learning_rate": simulation.single_site_adapter_learning_rate or training.adapter_learning_rate,
        }
        with_rates = changed(single, training=rates)
        arms += [_single_site(site, with_rates, seed, largest) for site in _single_sites(simulation.single_site, sites)]
    if "textbook" in wanted:
        arms.append(Arm("textbook", "textbook recipe", _textbook(scenario), all_sites, True, seed, recipe="textbook"))
    trouble = _trouble(scenario, sites)
    own = Arm("federated", "federated", study, all_sites, True, seed, noise_length=entries, trouble=trouble)
    arms.append(replace(own, keeps_norms=simulation.update_norms))
    if "untroubled" in wanted and trouble:
        title, stream = "federated without trouble", "federated"
        arms.append(Arm("untroubled", title, study, all_sites, True, seed, stream=stream, noise_length=entries))
    if "local-noise" in wanted and study.federation.secure_sum == "shared":
        title, own_noise = "each with the whole noise", changed(study, federation=NO_SUM)
        stream = "federated"
        arms.append(Arm("local-noise", title, own_noise, all_sites, True, seed, stream=stream, noise_length=entries))
    if "pooled" in wanted:
        title = "all records in one place"
        arms.append(Arm("pooled", title, single, all_sites, True, seed, pooled=True, stream=POOLED_STREAM))
    if "head-without-privacy" in wanted and head_only:
        head_rate = simulation.reference_head_alone_learning_rate
        arms.append(_reference("head-without-privacy", head_only, scenario, all_sites, head_rate=head_rate))
    if "without-privacy" in wanted:
        arms.append(_reference("without-privacy", study, scenario, all_sites))
    noise, set_apart = simulation.seed_of("noise"), simulation.seeds.noise
    arms = arms if set_apart is None else [replace(arm, evaluation_noise_seed=set_apart) for arm in arms]
    return arms if noise == seed else [replace(arm, noise_seed=noise) for arm in arms]


def left_out(simulation: Simulation, there: Collection[str]) -> list[str]:
    """Say which arms that a scenario lists, and has not by default, are not among those that are there, and why."""
    listed = simulation.arms if "arms" in simulation.model_fields_set else ()
    missing = [name for name in dict.fromkeys(listed) if name in WHY_LEFT_OUT and name not in there]
    return [f"The arm {name} is left out: {WHY_LEFT_OUT[name]}." for name in missing]


def _reference(
    name: str, study: Study, scenario: Scenario, site_indices: tuple[int, ...], *, head_rate: float | None = None
) -> Arm:
    """Return an arm WITHOUT PRIVACY; both have one stream of batches."""
    simulation = scenario.simulation
    title = "head alone WITHOUT PRIVACY" if name == "head-without-privacy" else "WITHOUT PRIVACY"
    training, stream, recipe = study.training, "without-privacy", "own"
    rates = {
        "learning_rate": simulation.noiseless_factor * training.learning_rate,
        "adapter_learning_rate": simulation.noiseless_factor * training.adapter_learning_rate,
    }
    if simulation.reference == "unclipped":
        recipe = "unclipped"
        rates["learning_rate"] = head_rate or simulation.reference_learning_rate or UNCLIPPED_RATE
        rates["adapter_learning_rate"] = simulation.reference_adapter_learning_rate or UNCLIPPED_RATE
    reference = changed(study, training=rates, federation={**UNROUNDED, **NO_SUM})
    return Arm(name, title, reference, site_indices, False, simulation.seed_of("batches"), recipe=recipe, stream=stream)


def _textbook(scenario: Scenario) -> Study:
    """Change a study to what tutorials train: LoRA's A and B, gradients cut at length 1, rates for Adam."""
    simulation, adapter = scenario.simulation, scenario.adapter
    lora = {"method": "lora"} if adapter.method == "ffa-lora" else {}
    return changed(
        scenario.as_study(),
        adapter=lora,
        privacy={"clipping": "flat", "clip_norm": 1.0, "head_share": None},
        training={
            "learning_rate": simulation.textbook_learning_rate,
            "adapter_learning_rate": simulation.textbook_adapter_learning_rate,
            "whitening": False,
        },
        federation={
            "aggregation": "fedit" if lora else scenario.federation.aggregation,
            **UNROUNDED,
            **OWN_SIZE,
            **NO_SUM,
        },
    )


def changed(study: Study, **sections: Mapping[str, object]) -> Study:
    """Replace some values of a study and validate it again."""
    declared = study.model_dump()
    for name, values in sections.items():
        declared[name] = {**declared[name], **values}
    return Study.model_validate(declared)


def arm_folder(run: Path, name: str) -> Path:
    """Return an arm's folder; a site's name may hold anything, so the folder's name only hints at it."""
    readable = re.sub(r"[^A-Za-z0-9-]+", "-", name)[:40].strip("-")
    return run / "arms" / f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def write_arm(arm: Arm, run: Path) -> None:
    """Write an arm where workers read it."""
    folder = arm_folder(run, arm.name)
    folder.mkdir(parents=True, exist_ok=True)
    plain = {
        "name": arm.name,
        "title": arm.title,
        "study": arm.study.model_dump(mode="json"),
        "site_indices": arm.site_indices,
        "protected": arm.protected,
        "seed": arm.seed,
        "recipe": arm.recipe,
        "pooled": arm.pooled,
        "stream": arm.stream,
        "noise_length": arm.noise_length,
        "noise_seed": arm.noise_seed,
        "evaluation_noise_seed": arm.evaluation_noise_seed,
        "keeps_norms": arm.keeps_norms,
        "trouble": arm.trouble and arm.trouble.model_dump(mode="json", exclude_unset=True),
    }
    write_atomically(folder / "arm.json", json.dumps(plain, indent=1).encode())


def read_arm(run: Path, name: str) -> Arm:
    """Read an arm that `write_arm` wrote."""
    plain = json.loads((arm_folder(run, name) / "arm.json").read_text())
    study, indices = recorded(plain.pop("study"), where=name), tuple(plain.pop("site_indices"))
    trouble = plain.pop("trouble", None)
    made = None if trouble is None else Trouble.model_validate(trouble)
    return Arm(study=study, site_indices=indices, trouble=made, **plain)


def _trouble(scenario: Scenario, sites: tuple[Site, ...]) -> Trouble | None:
    trouble, known = scenario.simulation.trouble, {site.name for site in sites}
    if unknown := sorted(trouble.named - known):
        names = ", ".join(sorted(known)[:20])
        raise SettingsError(f"Expected simulation.trouble to name sites among {names}, got {unknown[0]!r}.")
    return None if trouble == Trouble() else trouble


def _single_site(site: Site, study: Study, seed: int, largest: Site) -> Arm:
    stream = f"{SINGLE_SITE_STREAM}:{site.name}"
    title = f"{site.name} alone (largest)" if site is largest else f"{site.name} alone"
    return Arm(f"single-site:{site.name}", title, study, (site.index,), True, seed, stream=stream)


def _largest(sites: tuple[Site, ...]) -> Site:
    return max(sites, key=lambda site: site.train)


def _single_sites(which: str, sites: tuple[Site, ...]) -> list[Site]:
    if which == "every":
        return list(sites)
    if which == "largest":
        return [_largest(sites)]
    named = [site for site in sites if site.name == which]
    if not named:
        names = ", ".join(site.name for site in sites[:20])
        choices = f"'largest', 'every' or one of {names}"
        raise SettingsError(f"Expected simulation.single_site to be {choices}, got {which!r}.")
    return named
