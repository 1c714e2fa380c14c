"""Plan a study or a scenario: its sites' sizes from the data, where nobody types them, and how long it takes here."""

from collections.abc import Sequence
from pathlib import Path

from server.forecast.forecast import forecast_study, read_sizes
from server.forecast.suggestions import suggest
from server.forecast.values import StudyForecast
from shared.adapted_model.model import layout_of
from shared.errors import SettingsError
from shared.study.declaration import Study
from shared.study.parsing import parse
from simulations.experiment.prepare import sizes_of
from simulations.experiment.scenario import Scenario, data_path, read_changed
from simulations.step_timing import time_step


def plan_file(
    file: Path, sizes: str | None, changes: Sequence[str], *, epsilon_limit: float | None, spent_steps: int
) -> tuple[Study, StudyForecast, list[str]]:
    """Read a study or scenario and plan it; also what would help it to learn.

    Raises:
        SettingsError: the file is neither; sizes are missing for a bare study; no site is large enough.
        DataError: the scenario's table cannot be read.
    """
    declared = read_changed(file, changes)
    if sizes is not None:
        declared.pop("simulation", None)
        study, wanted = parse(Study, declared, where=str(file)), read_sizes(sizes)
    elif "simulation" in declared:
        scenario = parse(Scenario, declared, where=str(file))
        study, wanted = scenario.as_study(), sizes_of(scenario, data_path(scenario, file))
    else:
        raise SettingsError(f"Expected --sizes, since {file} is a study without data.", hint="--sizes 3700,4200")
    forecast = forecast_study(study, layout_of(study), wanted, epsilon_limit=epsilon_limit, spent_steps=spent_steps)
    return study, forecast, suggest(study, forecast)


def timed(study: Study, forecast: StudyForecast, tokens: int | None) -> dict[str, dict[str, float]]:
    """Minutes of every node, were it this machine: once before the first round, per round, and in all."""
    measured = time_step(study, tokens=tokens)
    found = {}
    for node in forecast.nodes:
        every = measured.minutes(steps=study.training.local_steps, batch=node.expected_batch)
        once = measured.minutes_before(records=node.declared_size)
        found[node.name] = {"min_once": once, "min_per_round": every, "min_in_all": once + every * forecast.rounds}
    return found
