"""Which certificates operators have, and which of them are good."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from server.run_store.operators import OperatorCertificate
from server.run_store.store import Store
from shared.errors import SettingsError

NOW = datetime.now(UTC)


def listed(serial: str, name: str, days: int = 1) -> OperatorCertificate:
    return OperatorCertificate(
        serial, name, False, NOW.isoformat(), "root", (NOW + timedelta(days=days)).isoformat(), None
    )


@pytest.mark.guarantee("an operator's certificate that is unknown, revoked or over opens nothing.")
def test_only_a_listed_certificate_that_is_neither_revoked_nor_over_is_good(tmp_path: Path) -> None:
    with Store(f"sqlite:///{tmp_path / 'runs.db'}") as store:
        for certificate in (listed("a1", "anna"), listed("a2", "anna"), listed("b1", "bob"), listed("c1", "carl", -1)):
            store.operators.add(certificate)
        assert store.operators.valid("a1", NOW) == listed("a1", "anna")
        assert store.operators.valid("a1", NOW + timedelta(days=1)) is None
        for unknown in ("", "a", "A1", "a1 ", "%", "anna"):
            assert store.operators.valid(unknown, NOW) is None
        store.operators.add(listed("b2", "bob", 3))
        assert store.operators.ends(NOW) == {"anna": NOW + timedelta(days=1), "bob": NOW + timedelta(days=3)}
        assert store.operators.revoke("anna") == ["a1", "a2"], "all that a person has"
        assert store.operators.valid("a1", NOW) is store.operators.valid("a2", NOW) is None
        assert store.operators.valid("b1", NOW) is not None and store.operators.valid("c1", NOW) is None
        states = {one.serial: one.status(NOW) for one in store.operators.certificates()}
        assert states == {"a1": "revoked", "a2": "revoked", "b1": "valid", "b2": "valid", "c1": "expired"}
        for name in ("anna", "dora"):
            with pytest.raises(SettingsError, match=r"an operator with a certificate \(bob, carl\)"):
                store.operators.revoke(name)
