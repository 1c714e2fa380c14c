"""What an operator sees and decides, command by command."""

import json
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from client.cli import main
from client.vault.ledger.ledger import Ledger
from client.vault.ledger.state import times
from shared.base_models.locate import find
from shared.privacy.accounting import epsilon_rdp
from shared.study.declaration import Model

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in this process: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fedvault-node", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        written = capsys.readouterr()
        return int(ended.value.code or 0), written.out, written.err

    return run


@pytest.fixture
def study(tmp_path: Path, tiny_bert: Path) -> Callable[..., str]:
    fingerprint = find(Model(source=str(tiny_bert))).fingerprint
    shutil.copytree(tiny_bert, tmp_path / "models" / "tiny")
    (tmp_path / "ward.csv").write_text("text,label\n" + "".join(f"good word{i},yes\n" for i in range(60)))
    (tmp_path / "renamed.csv").write_text("text,label\nGOOD  word7,no\nanother,yes\n")
    dataset = f'epsilon = 3.0\ndelta = 1e-5\ndeclared_size = 60\nmodels = ["{fingerprint}"]\n'
    datasets = [f'[datasets.{name}]\nsource = "{name}.csv"\n{dataset}' for name in ("ward", "renamed")]
    (tmp_path / "node.toml").write_text("\n".join(datasets))

    def write(name: str = "study.toml", **changes: Any) -> str:
        values = {"epsilon": 2.0, "quorum": 3, "wire": "float32", "sizes": "", "whitening": "false"} | changes
        (tmp_path / name).write_text(f"""
[study]
name = "test"
[model]
source = "{tiny_bert}"
fingerprint = "{fingerprint}"
[task]
kind = "sequence-classification"
labels = ["no", "yes"]
max_length = 24
[privacy]
epsilon = {values["epsilon"]}
[training]
whitening = {values["whitening"]}
[federation]
quorum = {values["quorum"]}
wire = "{values["wire"]}"
{values["sizes"]}
""")
        return name

    return write


def test_init_writes_a_template_and_an_empty_ledger_and_changes_nothing_twice(node: Command, tmp_path: Path) -> None:
    assert node("init")[0] == 0
    before = (tmp_path / "node.toml").read_text()
    assert node("init")[0] == 0 and (tmp_path / "node.toml").read_text() == before
    assert (tmp_path / "node").stat().st_mode & 0o777 == 0o700
    assert json.loads(node("ledger", "--json")[1])["rows"] == 0


def test_models_are_listed_by_the_fingerprints_that_a_policy_takes(node: Command, study: Callable[..., str]) -> None:
    study()
    found = {Path(one["folder"]).name: one["fingerprint"] for one in json.loads(node("models", "--json")[1])}
    assert found["tiny"] in Path("node.toml").read_text()
    assert f"{found['tiny']}  " in node("models")[1]


def test_show_says_what_leaves_and_what_it_costs(node: Command, study: Callable[..., str]) -> None:
    code, out, _ = node("show", study(), "--dataset", "ward")
    assert code == 0 and "2.000 of 3" in out and "nothing else that depends on a record" in out
    asked = json.loads(node("show", study(), "--dataset", "ward", "--json")[1])
    assert asked["epsilon_promised"] == 0 and asked["objections"] == [] and asked["rounds"] == 8
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
    assert accounts["renamed"]["promised"] == accounts["ward"]["promised"] > 1.9
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


def test_withdraw_lists_and_ends(node: Command, study: Callable[..., str]) -> None:
    node("approve", study(), "--dataset", "ward", "--run", "first", "--yes")
    code, out, _ = node("withdraw", "ward", "--yes")
    assert code == 0 and "Nothing is unlearned" in out
    code, _, err = node("approve", study(), "--dataset", "ward", "--run", "second", "--yes")
    assert code == 5 and "withdrawn" in err
    assert "withdrawn" in node("ledger")[1]


def test_ledger_is_verified_and_exported(node: Command, study: Callable[..., str], tmp_path: Path) -> None:
    node("approve", study(), "--dataset", "ward", "--run", "first", "--yes")
    code, out, _ = node("ledger", "--verify", "--export", "rows.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert code == 0 and out.startswith("Whole: 2 rows") and [row["kind"] for row in rows] == ["register", "approve"]
    with sqlite3.connect(tmp_path / "node" / "ledger.db") as database:
        database.executescript("DROP TRIGGER rows_stay; UPDATE rows SET body = replace(body, '3.0', '9.0');")
    database.close()
    code, _, err = node("ledger", "--verify")
    assert code == 9 and "row 1 is not what it was" in err
    assert "--export" in err and "--accept" in err and "--verify" not in err, "the hint leads on"


def test_a_damaged_ledger_is_exported_and_a_person_can_go_on(
    node: Command, study: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node("approve", study(), "--dataset", "ward", "--run", "first", "--yes")
    with sqlite3.connect(tmp_path / "node" / "ledger.db") as database:
        database.executescript("DROP TRIGGER rows_stay; UPDATE rows SET body = 'torn' WHERE height = 2;")
    database.close()
    code, _, err = node("ledger", "--export", "rows.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert code == 9 and "2 rows" in err and [row.get("kind") for row in rows] == ["register", None]
    assert rows[1]["body"] == "torn" and rows[1]["after_the_break"]
    monkeypatch.setattr("typer.confirm", lambda *_, **__: sys.exit(1))
    assert node("ledger", "--accept")[0] == 1 and node("ledger")[0] == 9, "it asks first"
    code, _, err = node("ledger", "--accept", "--yes")
    assert code == 0 and "never be trained on again" in err
    account = json.loads(node("ledger", "--json")[1])["datasets"]["ward"]
    assert account["withdrawn"] and account["left"] == 0
    for dataset in ("ward", "renamed"):
        code, _, err = node("approve", "study.toml", "--dataset", dataset, "--run", "second", "--yes")
        assert code == 5 and "withdrawn" in err
    code, _, err = node("ledger", "--accept", "--yes")
    assert code == 2 and "this one is whole" in err


def test_the_ledger_says_what_is_left_and_how_many_more_rounds_fit(
    node: Command, study: Callable[..., str], tmp_path: Path
) -> None:
    node("approve", study(epsilon=1.0), "--dataset", "ward", "--run", "first", "--yes")
    found = json.loads(node("ledger", "--json")[1])
    account, run = found["datasets"]["ward"], found["runs"]["first"]
    assert account["left"] == pytest.approx(3.0 - account["promised"]) and run["earmarked"] == run["rounds"] == 8
    more = run["more_rounds_fit"]
    with Ledger(tmp_path / "node" / "ledger.db", second_copy=tmp_path / "node-ledger-copy" / "head.json") as ledger:
        state = ledger.state
    per_round = state.runs["first"].per_round
    assert epsilon_rdp([times(per_round, 8 + more)], 1e-5) <= 3.0 < epsilon_rdp([times(per_round, 9 + more)], 1e-5)
    shown = node("ledger")[1]
    assert "left" in shown and "0 of 8" in shown and str(more) in shown
    settings = (tmp_path / "node.toml").read_text()
    (tmp_path / "node.toml").write_text(settings.replace("epsilon = 3.0", "epsilon = 1.0"))
    assert json.loads(node("ledger", "--json")[1])["runs"]["first"]["more_rounds_fit"] == 0, "node.toml is stricter"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "study.toml", "--dataset", "nobody"], "node.toml (ward, renamed)"),
        (["show", "absent.toml", "--dataset", "ward"], "absent.toml"),
        (["withdraw", "nobody", "--yes"], "node.toml (ward, renamed)"),
        (["ledger", "--config", "absent.toml"], "fedvault-node init"),
    ],
)
def test_mistakes_are_one_clear_error(
    node: Command, study: Callable[..., str], arguments: list[str], words: str
) -> None:
    study()
    code, out, err = node(*arguments)
    assert code != 0 and out == "" and words in err and "Traceback" not in err


def test_help_teaches(node: Command) -> None:
    for command in ([], ["init"], ["register"], ["show"], ["approve"], ["ledger"], ["withdraw"]):
        assert "Usage" in node(*command, "--help")[1]
