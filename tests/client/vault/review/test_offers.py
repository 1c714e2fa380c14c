"""Studies that a server showed: bounded, one study for each run, and turned down for good."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from client.vault.review.offers import LARGEST_STUDY_BYTES, MOST_OFFERS, STALE_S, Offers
from shared.errors import DataError, PeerError, PolicyRefusal, SettingsError
from shared.protocol.messages import StudyOffer
from shared.study.declaration import Study
from tests.support.nodes import offer

Studies = Callable[..., Study]


def test_what_the_server_shows_no_more_makes_room_and_what_was_rejected_stays_so(
    tmp_path: Path, make_study: Studies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.vault.review.offers.MOST_OFFERS", 3)
    offers, study, folder = Offers(tmp_path / "offers"), make_study(), tmp_path / "offers"
    for run in ("no", "old", "older", "again"):
        offers.receive(offer(study, run))
        if run == "no":
            offers.reject("no")
        for path in folder.iterdir():
            age = path.stat().st_mtime - STALE_S / 3
            os.utime(path, (age, age))
    offers.receive(offer(study, "old"))  # shown again: it is on offer still
    with pytest.raises(PeerError, match="one more"):
        offers.receive(offer(study, "new"))
    for path in folder.iterdir():
        age = path.stat().st_mtime - STALE_S
        os.utime(path, (age, age))
    offers.receive(offer(study, "new"))
    assert [offered.run for offered in offers.all()] == ["again", "new", "no", "old"]
    with pytest.raises(PolicyRefusal, match="was rejected"):
        offers.check_open("no")


def test_offers_are_bounded_and_one_run_has_one_study(tmp_path: Path, make_study: Studies) -> None:
    offers = Offers(tmp_path / "offers")
    study = make_study()
    assert offers.receive(offer(study)).run == "r-1" and offers.find("r").study == study
    with pytest.raises(PeerError, match="another one"):
        offers.receive(offer(make_study(training={"local_steps": 7})))
    for wrong in (
        StudyOffer("r-2", "{}"),
        StudyOffer("r-2", "[" * 100_000),
        StudyOffer("r-2", " " * (LARGEST_STUDY_BYTES + 1)),
        StudyOffer("", study.canonical_json()),
        StudyOffer("r" * 101, study.canonical_json()),
        StudyOffer("r-2\x1b[2J", study.canonical_json()),
        StudyOffer("r-2\nr-3", study.canonical_json()),
    ):
        with pytest.raises(PeerError, match="Expected"):
            offers.receive(wrong)
    with pytest.raises(PeerError, match="at most"):
        offers.receive(StudyOffer("r-1", study.canonical_json() + " " * LARGEST_STUDY_BYTES))
    for number in range(MOST_OFFERS - 1):
        offers.receive(offer(study, f"../{number}"))
    with pytest.raises(PeerError, match="one more"):
        offers.receive(offer(study, "one-more"))
    assert {path.parent for path in tmp_path.rglob("*.json")} == {tmp_path / "offers"}, "names do not become paths"
    with pytest.raises(SettingsError, match="one study on offer"):
        offers.find("../")


def test_an_offer_that_a_clock_dated_ahead_keeps_no_other_out(tmp_path: Path, make_study: Studies) -> None:
    offers, study = Offers(tmp_path / "offers"), make_study()
    for number in range(MOST_OFFERS):
        offers.receive(offer(study, f"r-{number}"))
    ahead = time.time() + 400 * 24 * 3600
    for path in (tmp_path / "offers").iterdir():
        os.utime(path, (ahead, ahead))
    offers.receive(offer(study, "new"))
    assert len(offers.all()) == MOST_OFFERS and offers.find("new").study == study


@pytest.mark.guarantee(
    "what reads as a hash finds the study that has it, never one whose run or name was chosen to look so."
)
def test_a_hash_finds_no_study_that_only_looks_like_it(tmp_path: Path, make_study: Studies) -> None:
    meant = make_study()
    begins, offers = meant.sha256[:8], Offers(tmp_path / "offers")
    posing = make_study(study={"name": begins}, training={"local_steps": 7})
    offers.receive(offer(posing, "r-1"))
    offers.receive(offer(posing, f"{begins}-1"))
    with pytest.raises(PeerError, match="no hash"):
        offers.receive(offer(posing, begins))
    for told in (begins, begins.upper()):
        with pytest.raises(SettingsError, match="got"):
            offers.find(told)
    offers.receive(offer(meant, "r-2"))
    for told in (begins, begins.upper(), meant.sha256):
        assert offers.find(told).run == "r-2"
    assert offers.find(f"{begins}-1").study == posing, "its own whole name still finds it"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"study_run": "r"}', b"\xff", b"[" * 100_000, b'{"rejected": 1}']
)
def test_one_damaged_offer_is_named_and_hides_no_other(tmp_path: Path, make_study: Studies, content: bytes) -> None:
    offers, study = Offers(tmp_path / "offers"), make_study()
    for run in ("one", "two"):
        offers.receive(offer(study, run))
    file = offers._of("two")
    file.write_bytes(content)
    assert [offered.run for offered in offers.all()] == ["one"] and offers.find("one").run == "one"
    (damage,) = offers.damaged()
    assert str(file) in str(damage) and "Delete it" in damage.hint
    with pytest.raises(DataError):
        offers.receive(offer(study, "two"))
    file.unlink()
    offers.receive(offer(study, "two"))
    assert len(offers.all()) == 2 and offers.damaged() == []
