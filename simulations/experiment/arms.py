"""The arms of a scenario: the study itself, and what an honest reader compares it with."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shared.adapted_model.model import layout_of
from shared.errors import SettingsError
from shared.files import write_atomically
from shared.study.declaration import Study, recorded
from simulations.experiment.prepare import Site
from simulations.experiment.scenario import Scenario

UNROUNDED = {"wire": "float32"}
"""For arms that have no noise, or whose optimizer makes another of it: an encoding's steps are those of SGD's noise."""
OWN_SIZE = {"typical_size": None}
"""For arms of one site, and for Adam, which takes no notice of a divisor."""
HEAD_ONLY = {"method": "head-only", "rank_pattern": {}, "rank_stabilized": False}


@dataclass(frozen=True)
class Arm:
    """One trained arm."""

    name: str
    title: str
    study: Study
    site_indices: tuple[int, ...]
    protected: bool
    seed: int
    recipe: str = "own"
    """`own`, or `textbook`: what its sites train by."""
    pooled: bool = False
    """Whether all its sites' records are in one place."""
    paired_with: str = ""
    """The arm whose batches it trains on, and whose noise it has where it trains the same entries: what the two differ
    by is then what they do, not what they drew."""
    drawn: int = 0
    """Entries of that arm's adapter, or of its own where another is paired with it; a round may train only some."""

    @property
    def draws(self) -> str:
        """Whose batches and noise it has."""
        return self.paired_with or self.name


def trained_arms(scenario: Scenario, sites: tuple[Site, ...]) -> list[Arm]:
    """The arms that are trained, the study itself last but for the reference without privacy."""
    study, simulation = scenario.as_study(), scenario.simulation
    wanted, seed, everyone = simulation.arms, simulation.seed, tuple(site.index for site in sites)
    arms = []
    head_only, layout = None, layout_of(study)
    if study.adapter.method != "head-only" and any(name.startswith("head.") for name, _ in layout.tensors):
        head_only = changed(study, adapter=HEAD_ONLY, federation={"aggregation": "ffa"})
    entries = layout.length
    if "head-federated" in wanted and head_only:
        arms.append(
            Arm("head-federated", "head alone", head_only, everyone, True, seed, paired_with="federated", drawn=entries)
        )
    single = changed(study, federation={"quorum": 1, **OWN_SIZE})
    if "site-alone" in wanted:
        arms += [
            Arm(f"site-alone:{site.name}", f"{site.name} alone", single, (site.index,), True, seed)
            for site in _alone(simulation.alone, sites)
        ]
    if "textbook" in wanted:
        arms.append(Arm("textbook", "textbook recipe", _textbook(scenario), everyone, True, seed, recipe="textbook"))
    arms.append(Arm("federated", "federated", study, everyone, True, seed, drawn=entries))
    if "central" in wanted:
        arms.append(Arm("central", "all records in one place", single, everyone, True, seed, pooled=True))
    rates = {
        "learning_rate": simulation.reference_learning_rate,
        "adapter_learning_rate": simulation.reference_adapter_learning_rate,
    }
    if "head-without-privacy" in wanted and head_only:
        alone = simulation.reference_head_alone_learning_rate or simulation.reference_learning_rate
        reference = changed(head_only, training=rates | {"learning_rate": alone}, federation=UNROUNDED)
        title, pair = "head alone WITHOUT PRIVACY", "without-privacy"
        arms.append(Arm("head-without-privacy", title, reference, everyone, False, seed, paired_with=pair))
    if "without-privacy" in wanted:
        reference = changed(study, training=rates, federation=UNROUNDED)
        arms.append(Arm("without-privacy", "WITHOUT PRIVACY", reference, everyone, False, seed))
    return arms


def _textbook(scenario: Scenario) -> Study:
    """The same study as tutorials train it: LoRA's A and B, gradients cut at length 1, rates for Adam."""
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
        federation={"aggregation": "fedit" if lora else scenario.federation.aggregation, **UNROUNDED, **OWN_SIZE},
    )


def changed(study: Study, **sections: Mapping[str, object]) -> Study:
    """A study with some values replaced, validated anew."""
    declared = study.model_dump()
    for name, values in sections.items():
        declared[name] = {**declared[name], **values}
    return Study.model_validate(declared)


def arm_folder(run: Path, name: str) -> Path:
    """Where an arm is kept; a site's name is data and may hold anything, so it only hints."""
    readable = re.sub(r"[^A-Za-z0-9-]+", "-", name)[:40].strip("-")
    return run / "arms" / f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def write_arm(arm: Arm, run: Path) -> None:
    """Leave an arm where workers read it."""
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
        "paired_with": arm.paired_with,
        "drawn": arm.drawn,
    }
    write_atomically(folder / "arm.json", json.dumps(plain, indent=1).encode())


def read_arm(run: Path, name: str) -> Arm:
    """Read what `write_arm` left."""
    plain = json.loads((arm_folder(run, name) / "arm.json").read_text())
    study, indices = recorded(plain.pop("study"), where=name), tuple(plain.pop("site_indices"))
    return Arm(study=study, site_indices=indices, **plain)


def _alone(which: str, sites: tuple[Site, ...]) -> list[Site]:
    if which == "every":
        return list(sites)
    if which == "largest":
        return [max(sites, key=lambda site: site.train)]
    named = [site for site in sites if site.name == which]
    if not named:
        names = ", ".join(site.name for site in sites[:20])
        raise SettingsError(f"Expected simulation.alone to be 'largest', 'every' or one of {names}, got {which!r}.")
    return named
