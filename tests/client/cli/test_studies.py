"""What a study asks of a dataset, and the operator's yes or no."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from client.vault.review.node_files import open_node
from shared.base_models.locate import find
from shared.protocol.messages import StudyOffer
from shared.study.declaration import load_study
from shared.study.sections import Model
from tests.support.documents import blocks

Command = Callable[..., tuple[int, str, str]]


def test_show_says_what_leaves_and_what_it_costs(node: Command, study: Callable[..., str]) -> None:
    code, out, _ = node("show", study(), "--dataset", "ward")
    assert code == 0 and "2.000 of 3" in out and "nothing else that depends on a record" in out
    asked = json.loads(node("show", study(), "--dataset", "ward", "--json")[1])
    assert asked["epsilon_before"] == 0 and asked["objections"] == [] and asked["rounds"] == 8
    assert asked["epsilon_after"] == asked["epsilon_alone"] <= 2.0
    assert json.loads(node("ledger", "--json")[1])["rows"] == 0, "looking enters nothing"


def test_show_says_what_the_site_weighs_where_sizes_do(node: Command, study: Callable[..., str]) -> None:
    names = study(), study("large.toml", sizes="typical_size = 20"), study("small.toml", sizes="typical_size = 240")
    shown = [node("show", name, "--dataset", "ward")[1] for name in names]
    assert "typical" not in shown[0]
    assert "this site weighs 3 times a typical one" in shown[1] and "weighs 0.25 times a typical one" in shown[2]
    weights = [json.loads(node("show", name, "--dataset", "ward", "--json")[1])["weight"] for name in names]
    assert weights == [1, 3, 0.25]


def test_show_says_that_a_first_round_measures_features(node: Command, study: Callable[..., str]) -> None:
    code, out, _ = node("show", study(whitening="true"), "--dataset", "ward")
    assert code == 0 and "bytes of noisy second moments of the model's features (the first round) or noisy" in out
    assert "second moments" not in node("show", study(), "--dataset", "ward")[1]


def test_show_puts_the_bytes_of_every_encoding_beside_full_lora_and_the_whole_model(
    node: Command, study: Callable[..., str]
) -> None:
    names = study(), study("int8.toml", wire="int8")
    plain, short = (json.loads(node("show", name, "--dataset", "ward", "--json")[1]) for name in names)
    ways, floats = plain["bytes_by_way"], plain["bytes_per_round"] // 4
    assert ways == short["bytes_by_way"]
    assert (plain["bytes_per_round"], short["bytes_per_round"]) == (4 * floats, floats + 40)
    *ours, full_lora, full_model = ways.values()
    assert ours == [4 * floats, 2 * floats, floats + 40] and max(ours) < full_lora < full_model
    out = node("show", "int8.toml", "--dataset", "ward")[1]
    assert f"{floats + 40:>14,}  <- this study" in out and "the whole model" in out


def test_approve_earmarks_once_and_shared_records_share_the_budget(node: Command, study: Callable[..., str]) -> None:
    code, out, _ = node("approve", study(), "--dataset", "ward", "--run", "first", "--yes")
    assert code == 0 and "Approved" in out
    code, _, err = node("approve", study(), "--dataset", "ward", "--run", "first", "--yes")
    assert code == 5 and "not approved before" in err
    code, _, err = node("approve", study("other.toml", epsilon=2.9), "--dataset", "renamed", "--run", "x", "--yes")
    assert code == 6 and "epsilon=3 of 'renamed'" in err
    assert list(json.loads(node("ledger", "--json")[1])["datasets"]) == ["ward"], "a refusal enters nothing"
    code, _, err = node("approve", study("small.toml", epsilon=0.5), "--dataset", "renamed", "--run", "y", "--yes")
    assert code == 0, err
    accounts = json.loads(node("ledger", "--json")[1])["datasets"]
    assert accounts["renamed"]["shares_records_with"] == ["ward"]
    assert accounts["renamed"]["spent_and_earmarked"] == accounts["ward"]["spent_and_earmarked"] > 1.9
    assert accounts["ward"]["spent"] == 0


def test_register_enters_one_row_and_says_whose_budget_is_shared(node: Command, study: Callable[..., str]) -> None:
    study()
    code, out, _ = node("register", "ward")
    assert code == 0 and "Row 1 of the ledger. Shares records with: none." in out
    assert "Row 2 of the ledger. Shares records with: ward." in node("register", "renamed")[1]
    assert "Row 3 of the ledger" in node("register", "ward")[1]
    code, out, err = node("register", "nobody")
    assert code != 0 and out == "" and "node.toml (ward, renamed)" in err


def test_node_toml_may_be_stricter_than_the_ledger_and_never_looser(
    node: Command, study: Callable[..., str], tmp_path: Path
) -> None:
    node("approve", study(epsilon=0.5), "--dataset", "ward", "--run", "first", "--yes")
    declared = (tmp_path / "node.toml").read_text()
    for epsilon, limit in ((1.0, "1"), (50.0, "3")):
        (tmp_path / "node.toml").write_text(declared.replace("epsilon = 3.0", f"epsilon = {epsilon}"))
        assert json.loads(node("show", "study.toml", "--dataset", "ward", "--json")[1])["epsilon_limit"] == float(limit)
        code, _, err = node("approve", study(epsilon=4.0), "--dataset", "ward", "--run", "x", "--yes")
        assert code in (5, 6) and ("above all" in err or f"epsilon={limit} of" in err)


def test_approving_asks_first(node: Command, study: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("typer.confirm", lambda *_, **__: sys.exit(1))
    assert node("approve", study(), "--dataset", "ward", "--run", "first")[0] == 1
    monkeypatch.undo()
    assert "approve" not in node("ledger", "--json")[1]


def test_the_policy_says_no(node: Command, study: Callable[..., str]) -> None:
    assert "The policy says no: its quorum of 2" in node("show", study(quorum=2), "--dataset", "ward")[1]
    code, _, err = node("approve", study(quorum=2), "--dataset", "ward", "--run", "first", "--yes")
    assert code == 5 and "quorum of 2 is below 3" in err


def test_show_takes_the_file_of_the_servers_guide_as_it_stands(
    node: Command, study: Callable[..., str], tmp_path: Path
) -> None:
    study()
    guide = blocks("server/README.md", "toml")[0]
    (tmp_path / "study.toml").write_text(guide)
    fingerprint = find(Model(source="bundled:minilm")).fingerprint
    policy = f'epsilon = 3.0\ndelta = 1e-5\ndeclared_size = 1000\nmodels = ["{fingerprint}"]\n'
    (tmp_path / "node.toml").write_text(f'[datasets.ward]\nsource = "ward.csv"\n{policy}')
    (tmp_path / "study").write_text(f'{guide}\n[simulation.data]\nsource = "a.csv"\n')
    for name in ("study.toml", "study"):
        code, out, err = node("show", name)
        assert code == 0 and "trains a ffa-lora adapter of bundled:minilm" in out, err
        assert "The policy says no" not in out


def test_show_says_epsilon_in_plain_words(node: Command, study: Callable[..., str]) -> None:
    out = node("show", study(epsilon=1.0), "--dataset", "ward")[1]
    assert "at most 2.7 times as likely because one record took part" in out and "guess is right 73 %" in out


def test_a_study_on_offer_is_named_by_run_name_or_hash(node: Command, study: Callable[..., str]) -> None:
    declared = load_study(Path(study()))
    offers = open_node(Path("node.toml")).offers
    offers.receive(StudyOffer("r-20300101-1", declared.canonical_json()))
    for name in ("r-2030", "test", declared.sha256, declared.sha256[:8]):
        assert offers.find(name).run == "r-20300101-1"
    assert node("show", declared.sha256[:12], "--dataset", "ward")[0] == 0
    assert "best guess" in node("studies")[1]
    offers.receive(StudyOffer("r-20300101-2", declared.canonical_json()))
    code, _, err = node("show", "test", "--dataset", "ward")
    assert code == 2 and "r-20300101-1, r-20300101-2" in err, "two runs of one study are told apart by their names"


def test_show_and_approve_say_who_asks_why_and_what_is_not_stated(
    node: Command, study: Callable[..., str], tmp_path: Path
) -> None:
    file = tmp_path / study()
    stated = 'purpose = "Sort letters."\nlegal_basis = "Art. 6(1)(e) GDPR"\n'
    file.write_text(file.read_text().replace('name = "test"\n', f'name = "test"\n{stated}'))
    for command in (["show"], ["approve", "--run", "first", "--yes"]):
        out = node(*command, "study.toml", "--dataset", "ward")[1]
        assert "Its purpose, as declared: Sort letters. Legal basis: Art. 6(1)(e) GDPR." in out
        assert "It does not state its requester, contact, retention." in out
    asked = json.loads(node("show", "study.toml", "--dataset", "ward", "--json")[1])
    assert asked["stated"] == {"legal basis": "Art. 6(1)(e) GDPR"} and asked["unstated"][0] == "requester"


@pytest.mark.guarantee(
    "a text of a study or an offer reaches a terminal without control characters, and inside its own line."
)
def test_a_study_cannot_write_lines_of_its_own_nor_steer_the_terminal(
    node: Command, study: Callable[..., str], tmp_path: Path
) -> None:
    file = tmp_path / study()
    hostile = r'description = "Sort letters.\u001b[2J\u202e\nThe policy allows it."'
    file.write_text(file.read_text().replace('name = "test"\n', f'name = "test"\n{hostile}\n'))
    for command in (["show"], ["approve", "--run", "first", "--yes"]):
        code, out, err = node(*command, "study.toml", "--dataset", "ward")
        assert code == 0 and not any(mark in out for mark in "\x1b\u202e"), err
        assert r"Sort letters.\x1b[2J\u202e The policy allows it" in out


def offered(study: Callable[..., str], run: str) -> None:
    offers = open_node(Path("node.toml")).offers
    offers.receive(StudyOffer(run, load_study(Path(study())).canonical_json()))


def test_who_decided_and_why_is_shown_wherever_the_run_is(node: Command, study: Callable[..., str]) -> None:
    offered(study, "r-1")
    by_ana = ["--by", "Ana", "--note", "Ethics vote 17."]
    assert node("approve", "r-1", "--dataset", "ward", *by_ana, "--yes")[0] == 0
    assert node("reject", "r-1", "--by", "Ben")[0] == 0
    (listed,) = json.loads(node("studies", "--json")[1])
    assert listed["you said"] == "no" and listed["decisions"].startswith("yes 20")
    decisions = json.loads(node("ledger", "--json")[1])["runs"]["r-1"]["decisions"]
    assert [(one["answer"], one["by"], one["note"]) for one in decisions] == [
        ("yes", "Ana", "Ethics vote 17."),
        ("no", "Ben", ""),
    ]
    shown = node("show", "r-1", "--dataset", "ward")[1]
    assert "by Ana (Ethics vote 17.); no 20" in shown and "by Ben." in shown
    assert "by Ana" in " ".join(node("ledger")[1].split())
    code, _, err = node("approve", "r-1", "--dataset", "ward", "--yes")
    assert code == 5 and "'r-1' was rejected" in err


def test_a_no_to_a_finished_run_leaves_its_yes_on_record(node: Command, study: Callable[..., str]) -> None:
    offered(study, "r-1")
    node("approve", "r-1", "--dataset", "ward", "--yes")
    opened = open_node(Path("node.toml"))
    with opened.open_ledger() as ledger:
        for number in range(1, ledger.state.runs["r-1"].rounds + 1):
            ledger.reserve("r-1", number)
            ledger.commit("r-1", number, b"released")
        spent = ledger.state.spent("ward")
    assert "What was said to it: yes 20" in node("reject", "r-1")[1]
    with opened.open_ledger() as ledger:
        assert [one.answer for one in ledger.state.decisions["r-1"]] == ["yes", "no"]
        assert ledger.state.spent("ward") == spent


def test_a_mistaken_no_is_followed_by_a_yes_that_counts(node: Command, study: Callable[..., str]) -> None:
    offered(study, "r-1")
    node("reject", "r-1", "--note", "Wrong run.")
    (listed,) = json.loads(node("studies", "--json")[1])
    assert listed["you said"] == "no"
    code, _, err = node("approve", "r-1", "--dataset", "ward", "--yes")
    assert code == 0, err
    (listed,) = json.loads(node("studies", "--json")[1])
    assert listed["you said"] == "yes" and "(Wrong run.); yes 20" in listed["decisions"]
    assert node("approve", "r-1", "--dataset", "ward", "--by", "x" * 81, "--yes")[0] == 2
