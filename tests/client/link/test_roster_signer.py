"""A node's line in a roster is signed by its certificate's key, for one run and one study."""

from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric import ec

from client.link.roster_signer import RosterSigner
from shared.protocol.messages import StudyOffer
from shared.secure_sum.entries import Entry, is_signed
from shared.secure_sum.keys import RunKeys
from shared.study.declaration import Study


def test_a_line_is_signed_for_the_run_and_study_of_the_offer_alone(make_study: Callable[..., Study]) -> None:
    signer, study, keys = (
        RosterSigner("north", ec.generate_private_key(ec.SECP384R1())),
        make_study(),
        RunKeys.generate(),
    )
    entry = Entry.from_bytes(signer.entry(StudyOffer("r-1", study.canonical_json()), keys.public))
    assert (entry.name, entry.certificate_key, entry.keys) == ("north", signer.certificate_key, keys.public)
    assert is_signed(entry, "r-1", study.sha256)
    other = make_study(federation={"rounds": 4})
    assert not is_signed(entry, "r-2", study.sha256) and not is_signed(entry, "r-1", other.sha256)
