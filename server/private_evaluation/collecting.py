"""Collect the answers to one evaluation: each site's own counts, or parts of a sum that alone is opened."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from flwr.app import Message

from server.private_evaluation.answers import LARGEST_COUNT, UNREADABLE, Answer, histograms, inspected
from server.secure_sum.opening import Opened, Opening
from shared.private_evaluation.cells import Cells
from shared.private_evaluation.estimates import Evaluated, OneSum, estimates, estimates_of_sum
from shared.private_evaluation.noise import sigma, summed_noise
from shared.protocol.messages import EvaluationTask
from shared.secure_sum.context import RoundContext
from shared.secure_sum.refusals import SecureSumError
from shared.secure_sum.thresholds import Thresholds
from shared.study.declaration import Study

LATE, LEFT_OUT = "late", "left-out"
TOO_FEW = "fewer nodes than the threshold have sent their counts, or came back"
IMPOSSIBLE = "the opened sum cannot be one of honest nodes"


class Collection(Protocol):
    """Judges the answers to one evaluation, and makes its estimates of them."""

    @property
    def task(self) -> EvaluationTask:
        """The question, as it is sent."""
        ...

    @property
    def quorum(self) -> int:
        """How many counts are enough, once the grace is over."""
        ...

    def resumed(self, answers: Mapping[str, Answer]) -> Evaluated | None:
        """Return what a server that was cut off had nearly finished; None if there is somebody to ask."""
        ...

    def needed_no_more(self, answers: Mapping[str, Answer]) -> set[str]:
        """Return the sites that are not asked again after the server was cut off, of those that had answered."""
        ...

    def inspect(self, site: str, message: Message) -> Answer | None:
        """Return what a message answers, and collect it; None if no answer will come to this question."""
        ...

    def evaluated(self, answers: Mapping[str, Answer], late: list[str]) -> Evaluated:
        """Return the estimates once it is over, and why some sites are not in them."""
        ...


@dataclass(frozen=True)
class OwnCounts:
    """The sites' own counts, which the server reads.

    Args:
        study: as declared.
        task: the question.
    """

    study: Study
    task: EvaluationTask

    @property
    def quorum(self) -> int:
        """Return the study's."""
        return self.study.federation.quorum

    def resumed(self, answers: Mapping[str, Answer]) -> None:
        """Return nothing: what came is in the run store, and the others are asked."""

    def needed_no_more(self, answers: Mapping[str, Answer]) -> set[str]:
        """Return all that have answered: their counts are kept."""
        return {*answers}

    def inspect(self, site: str, message: Message) -> Answer | None:
        """Return the counts in a message."""
        del site
        return inspected(message, self.task, cells=Cells.of(self.study).length)

    def evaluated(self, answers: Mapping[str, Answer], late: list[str]) -> Evaluated:
        """Return the estimates of each site and of all together."""
        return summary(self.study, self.task.number, answers, late=late)


class CountsInOneSum:
    """Parts of a sum of counts, of which the server can open the sum alone.

    Guarantee: the server opens the sum of an evaluation's counts over those that answered, and no site's own.

    Args:
        study: as declared, with a secure sum.
        task: the question, without a roster.
        opening: of the run's sums.
    """

    def __init__(self, study: Study, task: EvaluationTask, opening: Opening) -> None:
        roster = opening.fixed_roster
        self.task = replace(task, roster=roster.to_bytes())
        self._study, self._opening = study, opening
        self._length = Cells.of(study).length
        self._context = RoundContext(
            task.study_run, task.study_sha256, task.number, task.adapter_sha256, roster.sha256, "evaluation"
        )
        self._session = opening.session(self._context, self._length)

    @property
    def quorum(self) -> int:
        """Return how many parts a sum has at the least."""
        return self._opening.roster.quorum

    def resumed(self, answers: Mapping[str, Answer]) -> Evaluated | None:
        """Finish a sum whose survivors were fixed before the server was cut off; None if this one's were not."""
        resumed = self._opening.resumed(self._context, self._length)
        return None if resumed is None else self._summary(self._opening.open(*resumed), answers, [])

    def needed_no_more(self, answers: Mapping[str, Answer]) -> set[str]:
        """Return those that refused: a part that came before is not kept, and is sent again."""
        return {site for site, answer in answers.items() if not answer.counted}

    def inspect(self, site: str, message: Message) -> Answer | None:
        """Add the part in a message to the sum; one that is none of this sum is unreadable."""
        answer = inspected(message, self.task, cells=self._length, summed=True)
        if answer is None or not answer.counted:
            return answer
        try:
            self._session.add_masked(site, answer.masked)
        except SecureSumError:
            return replace(answer, status=UNREADABLE, masked=b"")
        self._opening.keep(self._session, site, answer.masked)
        return replace(answer, masked=b"")

    def evaluated(self, answers: Mapping[str, Answer], late: list[str]) -> Evaluated:
        """Open the sum of what came, and return its estimates; none if it is lost."""
        session, fixed = self._session, None
        if len(session.arrived) >= max(session.threshold, self.quorum):
            fixed = self._opening.fix(session)
        opened = Opened(session.arrived, None, TOO_FEW) if fixed is None else self._opening.open(session, fixed)
        return self._summary(opened, answers, late)

    def _summary(self, opened: Opened, answers: Mapping[str, Answer], late: list[str]) -> Evaluated:
        if opened.total is not None and np.abs(opened.total.astype(float)).max(initial=0) > LARGEST_COUNT:
            opened = replace(opened, total=None, reason=IMPOSSIBLE)
        if opened.total is None:
            self._opening.note_lost(self._context, opened.reason, opened.blamed)
        else:
            self._opening.note_opened(self._context, opened)
        sizes = self._session.roster.numbers.thresholds
        return summary_of_sum(self._study, self.task.number, opened, answers, sizes, late=late)


def summary(study: Study, number: int, answers: Mapping[str, Answer], *, late: list[str]) -> Evaluated:
    """Return the estimates of an evaluation, and why some sites are not in them."""
    assert study.evaluation is not None  # noqa: S101 - only such studies are evaluated
    noise, released = sigma(study), histograms(answers)
    return Evaluated(
        number=number,
        epsilon=study.evaluation.epsilon,
        sigma=noise,
        sites=tuple(sorted(released)),
        without={site: one.status for site, one in sorted(answers.items()) if not one.counted}
        | {site: LATE for site in late if site not in answers},
        estimates=estimates(Cells.of(study), released, noise),
    )


def summary_of_sum(
    study: Study,
    number: int,
    opened: Opened,
    answers: Mapping[str, Answer],
    sizes: Thresholds,
    *,
    late: list[str],
) -> Evaluated:
    """Return what the sum of the sites' counts tells, with the noise that so many of them have added.

    Args:
        study: as declared, with a secure sum.
        number: rounds that led to the adapter.
        opened: the sum, or why there is none.
        answers: by site.
        sizes: of the run's roster.
        late: sites that did not answer.
    """
    assert study.evaluation is not None  # noqa: S101 - only such studies are evaluated
    assert study.federation.secure_sum is not None  # noqa: S101 - only such studies are summed
    total, sites = opened.total, () if opened.total is None else opened.names
    noise = None if total is None else summed_noise(study, len(sites), sizes)
    why = {site: LEFT_OUT if one.counted else one.status for site, one in sorted(answers.items())}
    return Evaluated(
        number=number,
        epsilon=study.evaluation.epsilon,
        sigma=summed_noise(study, 1, sizes),
        sites=sites,
        without={site: reason for site, reason in why.items() if site not in sites}
        | {site: LATE for site in late if site not in answers},
        estimates=() if total is None or noise is None else estimates_of_sum(Cells.of(study), total, noise),
        one_sum=OneSum(noise=study.federation.secure_sum, sigma=noise, lost=opened.reason),
    )
