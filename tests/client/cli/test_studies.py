"""What a study asks of a dataset, and the operator's yes or no."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

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
