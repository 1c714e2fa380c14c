"""Every scenario that ships says what it shows, on which evidence, and runs by the command it names."""

import re

import pytest

from simulations.datasets.fetch import DATA, MODELS
from simulations.experiment.catalogue import SCENARIOS, Entry, catalogue
from simulations.experiment.scenario import load

EVIDENCE = ("real weights, real data", "real data, random weights", "plumbing only")


@pytest.mark.parametrize("entry", catalogue(), ids=lambda entry: entry.name)
def test_a_scenario_opens_with_what_it_shows_and_how_to_run_it(entry: Entry) -> None:
    declared = load(SCENARIOS / entry.file)
    assert len(entry.shows) > 40 and entry.evidence.startswith(EVIDENCE)
    assert re.search(rf"simulations/scenarios/{re.escape(entry.file.rsplit('/', 1)[-1])} ", entry.commands[-1] + " ")
    fetched = {command.rsplit(" ", 1)[-1] for command in entry.commands if " data fetch " in command}
    name = declared.model.bundled_name
    wanted = {declared.simulation.data.source.removeprefix("dataset:"), *([name] if name else [])}
    assert fetched <= {*MODELS, *DATA} and wanted - {"minilm", "vader"} <= fetched


def test_every_task_kind_has_a_scenario() -> None:
    from shared.study.tasks import KINDS

    assert {entry.task for entry in catalogue()} == KINDS.keys()
