"""Attack a sum with shared noise: canaries at one node, seen by a server with which c other nodes collude.

The way of a summand is the real one: the node's own trainer, its mask and boxes, survivors that are signed, a session
that opens their sum. As few nodes take part as the threshold allows, so the sum holds no more noise than is promised.
What is known is taken away: all that colluders added, and the other nodes' records, which are left out.

| view | what it goes by |
|---|---|
| `sum` | the opened sums, without what the colluders added |
| `message` | the masked vectors of the node itself |
| `difference` | the differences of its masked vectors between two rounds, in which all gradients are turned round |
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from numpy.typing import NDArray

from client.vault.training.randomness import OsRandomness, Randomness
from shared.errors import ExactnessError
from shared.privacy.grid import NOISE_STEPS
from shared.privacy.noise_schedule import schedule_of
from shared.privacy.releases import SharedGaussian
from shared.privacy.sum_numbers import sum_numbers
from shared.protocol.messages import TrainTask
from shared.secure_sum.context import RoundContext
from shared.secure_sum.entries import sign_entry
from shared.secure_sum.keys import RunKeys
from shared.secure_sum.messages import MaskedVector
from shared.secure_sum.node import MaskedRow, Member, mask_vector, open_sum, sign_survivors
from shared.secure_sum.roster import Roster
from shared.secure_sum.session import Session
from shared.secure_sum.thresholds import Thresholds
from shared.study.declaration import Study
from simulations.audit.audit import Audit, ideal_bounds, nearly_always
from simulations.audit.audited_site import Claim, records_of, site_on, study_of
from simulations.audit.canaries import Canaries, plant
from simulations.audit.one_run_bound import epsilon_of_any, epsilon_of_gaussian, guess

View = Literal["sum", "message", "difference"]
RUN = "audit"
FEW, MANY = Thresholds(4, 3, 1), Thresholds(10, 8, 1)
"""Of two honest nodes in a sum, and of seven."""


class Seen(NamedTuple):
    """One round, as a server with colluders has it in the end."""

    left: NDArray[np.int64]
    """The opened sum without what the colluders added."""
    message: NDArray[np.int64]
    """The masked values of the node with the canaries."""


def audit_sum(
    claim: Claim,
    folder: Path,
    *,
    seed: int,
    sizes: Thresholds = FEW,
    view: View = "sum",
    randomness: Callable[[int], Randomness] = lambda _draw: OsRandomness(),
) -> Audit:
    """Attack one run of a study whose nodes share the noise of a claim.

    Args:
        claim: to test: of records, without whitening.
        folder: for model and cache.
        seed: of the coins that put canaries in.
        sizes: of the roster.
        view: what the attacker goes by.
        randomness: of each node's sampling and noise, by a number of its own; a node's by default.

    Raises:
        ExactnessError: a round could not be trained.
    """
    included, canaries = np.random.default_rng([seed, 4]).random(claim.canaries) < 0.5, Canaries(claim.canaries, seed=0)
    study = study_of(claim, folder, sizes)
    scores = np.zeros(claim.canaries)
    before: NDArray[np.int64] | None = None
    for number, seen in enumerate(_rounds(study, claim, canaries, included, folder, sizes, randomness), start=1):
        if view == "sum":
            scores += canaries.scores(seen.left.astype(np.float64))
        elif view == "message":
            scores += canaries.scores(seen.message.astype(np.float64))
        elif number % 2 == 0 and before is not None:
            scores += canaries.scores((seen.message - before).astype(np.float64))
        before = seen.message
    guesses = guess(scores, included)
    accounted = schedule_of(study).noise_multiplier * NOISE_STEPS * np.sqrt(claim.rounds)
    return Audit(
        claim,
        guesses,
        epsilon_of_gaussian(guesses, delta=claim.delta),
        epsilon_of_any(guesses, delta=claim.delta),
        float(np.mean(ideal_bounds(claim))),
        nearly_always(ideal_bounds(claim, noise=0.5)),
        # nothing but noise lies in the direction of a canary that is not in
        noise=float(np.std(scores[~included]) / accounted) if view == "sum" else None,
    )


def _rounds(
    study: Study,
    claim: Claim,
    canaries: Canaries,
    included: NDArray[np.bool_],
    folder: Path,
    sizes: Thresholds,
    randomness: Callable[[int], Randomness],
) -> Iterator[Seen]:
    draws = iter(range(claim.rounds * sizes.nodes * 2))
    planted, size = np.flatnonzero(included), claim.canaries // 2

    def drawn(_round: int) -> Randomness:
        return randomness(next(draws))

    target = site_on(study, records_of(len(planted)), folder, drawn, declared_size=size)
    plant(target.trainer(), canaries, planted)
    other = site_on(study, records_of(0), folder, drawn, declared_size=size)
    members = _members(study, sizes)
    for number in range(1, claim.rounds + 1):
        canaries.sign = 1.0 if number % 2 else -1.0
        task = TrainTask(study.sha256, RUN, number, target.model.start)
        sent = dict[str, NDArray[np.int64]]()
        for name in list(members)[: sizes.threshold]:
            site = other if sent else target
            assert isinstance(site.release, SharedGaussian)  # noqa: S101 - of a study that shares its noise
            release = site.release.with_nodes(sizes.nodes, sizes.threshold, sizes.colluders)
            summand = site.summand(task, release)
            if summand is None or site.trainer().raised:
                raise ExactnessError(f"Expected round {number} to be trained, it failed.")
            sent[name] = summand
        yield _opened(members, task, sent, sizes.colluders)


def _opened(
    members: Mapping[str, Member], task: TrainTask, sent: Mapping[str, NDArray[np.int64]], colluders: int
) -> Seen:
    """Carry out one secure sum, and take away what the last of its nodes added, who collude."""
    roster, length = next(iter(members.values())).roster, len(task.adapter)
    context = RoundContext(RUN, task.study_sha256, task.round, task.adapter_sha256, roster.sha256)
    session, rows = Session(roster, context, length), dict[str, MaskedRow]()
    for name, values in sent.items():
        rows[name] = mask_vector(members[name], context, values, None)
        session.add_masked(name, rows[name].message)
    session.fix()
    signed = {}
    for name in session.unsigned:
        signed[name], reply = sign_survivors(members[name], context, session.survivors_question(), rows[name], None)
        session.add_signature(name, reply)
    for name in session.unopened:
        question = session.opening_question(name)
        session.add_opening(name, open_sum(members[name], context, question, rows[name], signed[name]))
    session.open()
    if session.total is None:
        raise ExactnessError(f"Expected the sum of round {task.round} to open, it is lost.")
    target, known = next(iter(sent)), sum(list(sent.values())[-colluders:])
    message = MaskedVector.from_bytes(rows[target].message).values.view(np.int64)
    return Seen(session.total - known, message)


def _members(study: Study, sizes: Thresholds) -> dict[str, Member]:
    """Return the nodes of a roster by name; the first has the canaries."""
    keys = {f"node-{place:03}": RunKeys.generate() for place in range(sizes.nodes)}
    entries = [
        sign_entry(RUN, study.sha256, name, own.public, ec.generate_private_key(ec.SECP384R1()))
        for name, own in keys.items()
    ]
    roster = Roster.of(RUN, study.sha256, sum_numbers(study, sizes.nodes), entries)
    return {name: Member(name, own, roster) for name, own in keys.items()}
