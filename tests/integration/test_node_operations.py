"""A node's operator from invite to leaving, with the commands and a real server."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from client.operator.doctor import examine
from client.vault.review.node_files import open_node
from shared.base_models.locate import find
from shared.protocol.messages import StudyOffer
from shared.study.declaration import Study
from shared.study.sections import Model
from simulations.e2e.certificates import expired_certificate
from simulations.e2e.federation import Federation, Impatience
from tests.support.commands import command

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("commands_in_this_process")]
Studies = Callable[..., Study]


@pytest.fixture(scope="module")
def ward(federation: Federation, tiny_bert: Path) -> str:
    """The name of a node that joined."""
    fingerprint = find(Model(source=str(tiny_bert))).fingerprint
    rows = [f"{'good' if i % 2 else 'bad'} word{i},{'yes' if i % 2 else 'no'}" for i in range(60)]
    policy = f'epsilon = 3.0\ndelta = 1e-5\ndeclared_size = 60\nmodels = ["{fingerprint}"]\nsmallest_cohort = 1\n'
    federation.make_node(
        "operated", "text,label\n" + "\n".join(rows) + "\n", policy, node=f'models = "{tiny_bert.parent}"'
    )
    federation.enrol("operated")
    return "operated"


def offered(federation: Federation, ward: str, study: Study, run: str) -> None:
    """As if the server had shown it."""
    open_node(federation.config(ward)).offers.receive(StudyOffer(run, study.canonical_json()))


def pinned(tiny_bert: Path) -> dict[str, str]:
    return {"source": str(tiny_bert), "fingerprint": find(Model(source=str(tiny_bert))).fingerprint}


def failing(config: Path) -> dict[str, str]:
    """Every check of a node without a study that fails: what it saw and what it says to do."""
    return {finding.check: finding.saw + finding.todo for finding in examine(config) if not finding.ok}


def test_doctor_finds_nothing_where_all_is_well(
    federation: Federation, ward: str, tiny_bert: Path, make_study: Studies
) -> None:
    offered(federation, ward, make_study(model=pinned(tiny_bert)), "r-doctor")
    said = federation.node(ward, "doctor", "r-doctor")
    for check in ("server", "clock", "key", "ledger", "disk", "certificate", "ward: data", "study: labels"):
        assert f"ok     {check}: " in said
    assert "60 rows (no 30, yes 30), declared 60. For your eyes only" in said
    assert "ok     ward: base models" in said and "ok     ward: budget" in said
    assert "s a step on cpu" in said and "GiB of memory" in said and "FAILED" not in said
    assert json.loads(federation.node(ward, "ledger", "--json"))["rows"] == 0, "looking costs nothing"


def test_doctor_says_what_to_do_about_each_trouble(
    federation: Federation, ward: str, tiny_bert: Path, make_study: Studies
) -> None:
    config = federation.config(ward)
    good, data = config.read_text(), config.with_name("records.csv").read_text()
    offered(federation, ward, make_study(model=pinned(tiny_bert)), "r-doctor")
    try:
        config.write_text(good.replace("epsilon = 3.0", "epsilon = 0.5"))
        printed = federation.node(ward, "doctor", "--json", "r-doctor", check=False)
        listed, _end = json.JSONDecoder().raw_decode(printed)  # what libraries say on stderr follows
        (budget,) = [finding for finding in listed if finding["check"] == "study: policy and budget"]
        assert not budget["ok"] and "above all that may ever be spent" in budget["saw"] + budget["todo"]
        config.write_text(good.replace(str(tiny_bert.parent), "nowhere"))
        assert "Put the model's folder" in failing(config)["ward: base models"]
        config.write_text(good.replace('source = "records.csv"', 'source = "absent.csv"'))
        assert "absent.csv" in failing(config)["ward: data"]
        config.write_text(good.replace("declared_size = 60", "declared_size = 61.5"))
        assert "declared_size" in failing(config)["settings"]
        config.write_text(good)
        config.with_name("records.csv").write_text(data.replace("text,label", "words,label"))
        assert "text" in failing(config)["ward: data"]
        config.with_name("records.csv").write_text(data)
        link = config.parent / "node" / "link"
        shutil.move(link, link.with_name("elsewhere"))
        assert "fedvault-node join" in failing(config)["membership"]
        shutil.move(link.with_name("elsewhere"), link)
        authority, certificate = (link / "authority.crt").read_bytes(), (link / "node.crt").read_bytes()
        (link / "authority.crt").write_bytes(certificate)
        assert "firewall and proxy" in failing(config)["server"]
        (link / "authority.crt").write_bytes(authority)
        (link / "node.crt").write_bytes(expired_certificate(federation, ward))
        assert "invite NAME --renew" in failing(config)["certificate"]
        (link / "node.crt").write_bytes(certificate)
        config.write_text(good + '[server]\nproxy = "http://127.0.0.1:9"\n')
        assert "Check name, port, firewall and proxy" in failing(config)["server"]
    finally:
        config.write_text(good)
        config.with_name("records.csv").write_text(data)
    assert failing(config) == {}


def test_studies_are_listed_shown_approved_receipted_and_rejected(
    federation: Federation, ward: str, tiny_bert: Path, make_study: Studies, tmp_path: Path
) -> None:
    offered(federation, ward, make_study(model=pinned(tiny_bert), study={"description": "Find coughs."}), "r-first")
    offered(federation, ward, make_study(model=pinned(tiny_bert)), "r-second")

    def said() -> dict[str, str]:
        return {row["run"]: row["you said"] for row in json.loads(federation.node(ward, "studies", "--json"))}

    assert said()["r-first"] == "nothing yet" and "r-first" in federation.node(ward, "studies")
    assert "Its purpose, as declared: Find coughs." in federation.node(ward, "show", "r-f")
    federation.node(ward, "approve", "r-first", "--yes")
    federation.node(ward, "reject", "r-second")
    assert said() | {"r-first": "yes", "r-second": "no"} == said()
    federation.node(ward, "receipt", "r-first", "--out", str(tmp_path / "receipt.json"))
    verified = command("client", "verify", str(tmp_path / "receipt.json"))
    assert "0 rounds paid, epsilon 0.000" in verified and "only --authority can tell" in verified
    authority = str(federation.home / "keys" / "authority.crt")
    assert "It is operated's." in command("client", "verify", str(tmp_path / "receipt.json"), "--authority", authority)
    (tmp_path / "receipt.json").write_text((tmp_path / "receipt.json").read_text().replace("1e-05", "1e-03"))
    with pytest.raises(Impatience, match="as it was signed"):
        command("client", "verify", str(tmp_path / "receipt.json"))
    federation.node(ward, "reject", "r-first")
    assert said()["r-first"] == "no"
    with pytest.raises(Impatience, match="was rejected"):
        federation.node(ward, "approve", "r-first", "--yes")


def test_status_logs_and_stop_of_a_node_that_does_not_run(federation: Federation, ward: str) -> None:
    found = json.loads(federation.node(ward, "status", "--json"))
    assert found["running"] is False and found["vault"] is None
    assert "not running" in federation.node(ward, "stop")
    with pytest.raises(Impatience, match="ended with 1:\nerror: Expected logs in"):
        federation.node(ward, "logs")


def test_leaving_closes_what_is_open_and_keeps_the_ledger(
    federation: Federation, ward: str, tiny_bert: Path, make_study: Studies
) -> None:
    offered(federation, ward, make_study(model=pinned(tiny_bert)), "r-third")
    federation.node(ward, "approve", "r-third", "--yes")
    before = json.loads(federation.node(ward, "ledger", "--json"))["rows"]
    assert "What was released stays released" in federation.node(ward, "leave", "--yes")
    after = json.loads(federation.node(ward, "ledger", "--json"))
    assert after["rows"] == before + 1 and after["datasets"]["ward"]["spent_and_earmarked"] == 0
    assert not (federation.config(ward).parent / "node" / "link" / "node.key").exists()
    with pytest.raises(Impatience, match="fedvault-node join INVITE"):
        federation.node(ward, "start")


def test_leaving_also_clears_up_after_a_join_that_did_not_come_to_its_end(federation: Federation, ward: str) -> None:
    link = federation.config(ward).parent / "node" / "link"
    (link / "node.key").write_text("made, and then the connection was cut")
    assert "did not come to its end" in federation.node(ward, "leave", "--yes")
    assert not (link / "node.key").exists()
    with pytest.raises(Impatience, match="fedvault-node join INVITE"):
        federation.node(ward, "leave", "--yes")
