"""Plan a study or a scenario: its sites' sizes from the data, where nobody types them, and how long it takes here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from server.forecast.forecast import forecast_study, read_sizes, with_evaluation
from server.forecast.suggestions import suggest
from server.forecast.values import StudyForecast
from shared.adapted_model.model import layout_of
from shared.errors import SettingsError
from shared.private_evaluation.precision import HELD_OUT
from shared.study.declaration import Study
from shared.study.parsing import parse
from simulations.experiment.prepare import sizes_of
from simulations.experiment.scenario import Scenario, data_path, read_changed
from simulations.step_timing import time_step


class FilePlan(NamedTuple):
    """The plan of a file."""

    study: Study
    forecast: StudyForecast
    suggestions: list[str]
    """Changes that would help it to learn."""
    records_per_unit: dict[str, float]
    """Mean of every site of a scenario, by its name; of typed sizes nothing is known."""


def plan_file(
    file: Path, sizes: str | None, changes: Sequence[str], *, epsilon_limit: float | None, spent_steps: int
) -> FilePlan:
    """Read a study or scenario and plan it.

    Raises:
        SettingsError: the file is neither; sizes are missing for a bare study; no site is large enough.
        DataError: the scenario's table cannot be read.
    """
    declared = read_changed(file, changes)
    records_per_unit, held_out = dict[str, float](), HELD_OUT
    if sizes is not None:
        declared.pop("simulation", None)
        study, units = parse(Study, declared, where=str(file)), read_sizes(sizes)
    elif "simulation" in declared:
        scenario = parse(Scenario, declared, where=str(file))
        by_site = sizes_of(scenario, data_path(scenario, file))
        study, units = scenario.as_study(), {name: size.units for name, size in by_site.items()}
        held_out = scenario.simulation.data.holdout / (1 - scenario.simulation.data.holdout)
        records_per_unit = {name: size.records / size.units for name, size in by_site.items() if size.units}
    else:
        raise SettingsError(f"Expected --sizes, since {file} is a study without data.", hint="--sizes 3700,4200")
    forecast = forecast_study(study, layout_of(study), units, epsilon_limit=epsilon_limit, spent_steps=spent_steps)
    forecast = with_evaluation(forecast, study, held_out)
    return FilePlan(study, forecast, suggest(study, forecast), records_per_unit)


def timed(
    study: Study, forecast: StudyForecast, records_per_unit: Mapping[str, float], tokens: int | None
) -> dict[str, dict[str, float]]:
    """Estimate every node's minutes, were it this machine: once before the first round, per round, and in all.

    Args:
        study: as declared.
        forecast: of the study.
        records_per_unit: by node; a node that is not named has one record for each unit.
        tokens: of a typical record; default: the most that the task allows.
    """
    step, minutes = time_step(study, tokens=tokens), {}
    for node in forecast.nodes:
        each = records_per_unit.get(node.name, 1.0)
        per_round = step.minutes(steps=study.training.local_steps, batch=each * node.expected_batch)
        once = step.minutes_before(records=each * node.declared_size)
        in_all = once + per_round * forecast.rounds
        minutes[node.name] = {"min_once": once, "min_per_round": per_round, "min_in_all": in_all}
    return minutes
