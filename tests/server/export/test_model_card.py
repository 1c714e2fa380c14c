"""The card beside a finished adapter: each node's privacy for every round that it may have paid for."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dp_accounting import dp_event
from dp_accounting.rdp import RdpAccountant

from server.export.adapter import export, merge
from server.export.model_card import card, rounds_paid, write_card
from server.rounds.checkpoints import State
from server.rounds.round import RoundRecord
from shared.adapted_model.model import initial_adapter
from shared.privacy.noise_schedule import plan
from shared.study.declaration import Study
from tests.support.handed_out import unfit
from tests.support.rounds import RECORDS


@pytest.mark.guarantee("a round that failed, was lost, came late or was rejected counts like one that was accepted.")
def test_the_card_counts_every_round_that_a_node_may_have_paid_for() -> None:
    refused = [{"node": 12, "status": "refused_budget"}, {"node": 13, "status": "failed"}]
    last = RoundRecord(4, "lost", [12, 13], [], [], refused, [], 0, 80, {})
    names = {11: "north", 12: "west", 13: "south", 14: "north"}
    paid = rounds_paid([record.as_dict() for record in [*RECORDS, last]], names=names)
    assert paid == {"north": {1, 2, 3}, "west": {1, 2}, "south": {2, 4}}, "lost, late, rejected and failed ones too"
    # round 5 was begun and its process died; round 4 was begun twice, so a refusal says nothing of the first time
    again = rounds_paid([last.as_dict()], names=names, asked=[(4, [12, 14]), (4, [12]), (5, [14])])
    assert again == {"north": {4, 5}, "west": {4}, "south": {4}}


def test_the_card_states_each_nodes_epsilon_for_the_rounds_it_may_have_paid(make_study: Callable[..., Study]) -> None:
    study = make_study(privacy={"epsilon": 2.0})
    state = State(study.sha256, "r-1", 3, np.zeros(1, np.float32), [record.as_dict() for record in RECORDS], {})
    planned = plan(study.privacy, steps=study.total_steps)
    names = {11: "north", 12: "west", 13: "south"}
    lines = card("r-1", study, state, names=names).splitlines()
    assert "2 organisations in 3 rounds as run `r-1` of study" in "\n".join(lines)
    for node, rounds in ((1, 3), (2, 1), (3, 2)):
        accountant = RdpAccountant()
        step = dp_event.PoissonSampledDpEvent(planned.sampling_rate, dp_event.GaussianDpEvent(planned.noise_multiplier))
        accountant.compose(step, rounds * study.training.local_steps)
        row = next(
            line for line in card("r-1", study, state, names=names).splitlines() if line.startswith(f"| {node} |")
        )
        stated = float(row.split("|")[3])
        assert stated == pytest.approx(accountant.get_epsilon(study.privacy.delta), rel=0.02)
        assert stated <= 2.0


def test_nothing_that_a_server_exports_is_an_empty_form_or_names_this_machine(
    make_study: Callable[..., Study], tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").symlink_to(tiny_bert)
    study = make_study(model={"source": "base"})
    adapter = initial_adapter(study)
    export(study, adapter, Path("adapter"))
    assert unfit(Path("adapter")) == [], "without a card too, which may fail"
    write_card(Path("adapter"), "r-1", study, State(study.sha256, "r-1", 0, adapter), names={})
    merge(Path("adapter"), Path("model"))
    for folder in (Path("adapter"), Path("model")):
        assert (folder / "README.md").exists() and unfit(folder) == []


def test_a_card_names_a_base_model_by_its_folder_alone(make_study: Callable[..., Study], tmp_path: Path) -> None:
    study = make_study()
    state = State(study.sha256, "r-1", 0, np.zeros(1, np.float32))
    write_card(tmp_path, "r-1", study, state, names={})
    assert Path(study.model.source).is_absolute() and unfit(tmp_path) == []
    assert f"`base` is the folder of `{Path(study.model.source).name}`" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    ("text", "fit"),
    [
        ("base_model: /srv/models/bert", False),
        ('"base_model_name_or_path": "C:\\\\models"', False),
        ("[More Information Needed]", False),
        ("https://example.org/a/b and adapter/head.safetensors and 0.390 / 0.4", True),
    ],
)
def test_what_is_unfit_to_be_handed_out_is_seen(tmp_path: Path, text: str, fit: bool) -> None:
    (tmp_path / "README.md").write_text(text)
    assert (unfit(tmp_path) == []) is fit


def test_a_card_of_shared_noise_says_what_is_left_if_all_others_collude(make_study: Callable[..., Study]) -> None:
    nodes = list(range(1, 37))
    last = RoundRecord(1, "aggregated", nodes, nodes, [], [], [], 8, 8, {})
    federation = {"rounds": 48, "secure_sum": "shared", "typical_size": 50, "threshold": 30, "colluders": 2}
    shared, local = (
        make_study(federation=declared, training={"local_steps": 1})
        for declared in (federation, {"rounds": 48, "typical_size": 50})
    )

    def written(study: Study) -> str:
        state = State(study.sha256, "r-1", 1, np.zeros(1, np.float32), [last.as_dict()], {})
        return " ".join(card("r-1", study, state, names={}).split())

    assert "while at most 2 other nodes and the server pool what they know" in written(shared)
    assert "if all others do, practically no protection: epsilon 43" in written(shared)
    assert "two organisations spends more than twice as much" in written(shared)
    assert "collude" not in written(local) and "pool what they know" not in written(local)
