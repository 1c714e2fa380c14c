"""Finds studies whose honest updates the server would reject, before anybody pays for them."""

from server.rounds.update_bounds import LARGEST_NORM, norm_bound
from shared.adapted_model.adapters import Layout
from shared.errors import SettingsError
from shared.privacy.noise_schedule import schedule_of
from shared.privacy.signal_to_noise import shortest_noise
from shared.privacy.study_steps import batch_of, parts_in, round_steps
from shared.search import smallest
from shared.study.declaration import Study

MOST_DECLARED = 10**9


def rejected_rounds(study: Study, layout: Layout, *, declared: int) -> list[int]:
    """Return the rounds in which the update of a node of this size is sure to be rejected, for its noise alone.

    The noise of such a round is longer than any update that the server accepts: the round is trained, paid for in
    privacy, and thrown away. "Sure" is but for a probability of e^-18, and for a signal that cancels the noise.
    """
    if study.federation.secure_sum == "shared":
        return []  # no update is seen by itself
    schedule, batch = schedule_of(study), batch_of(study, declared)

    def shortest(number: int) -> float:
        return shortest_noise(parts_in(study, layout.tensors, number), round_steps(study, schedule, batch, number))

    numbers = range(1, 1 + study.federation.rounds)
    return [number for number in numbers if shortest(number) > _accepted(study, layout, number)]


def smallest_accepted_size(study: Study, layout: Layout) -> int | None:
    """Return the smallest declared size whose updates may be accepted in every round; None if no size is enough."""
    return smallest(
        lambda size: not rejected_rounds(study, layout, declared=size),
        least=study.federation.smallest_declared_size,
        most=MOST_DECLARED,
    )


def refuse_sure_rejections(study: Study, layout: Layout) -> None:
    """Refuse a study that admits nodes only to throw their updates away.

    Raises:
        SettingsError: a node of the smallest size admitted is sure to be rejected in a round that it pays for.
    """
    smallest = study.federation.smallest_declared_size
    rounds = rejected_rounds(study, layout, declared=smallest)
    if not rounds:
        return
    hint = "Lower learning rates or trained entries, or raise privacy.epsilon or privacy.sampling_rate"
    if study.federation.typical_size is not None:
        hint += ", or raise federation.typical_size"
    elif (enough := smallest_accepted_size(study, layout)) is not None:
        hint += f", or set federation.smallest_declared_size to {enough} or more"
    raise SettingsError(
        f"Expected updates that the server accepts from every site that the study admits, got noise longer than "
        f"{_accepted(study, layout, rounds[0]):.0f} at one of federation.smallest_declared_size={smallest} in "
        f"{len(rounds)} of {study.federation.rounds} rounds.",
        hint=f"{hint}. Such rounds would be paid for and thrown away; --force runs the study nevertheless.",
    )


def _accepted(study: Study, layout: Layout, number: int) -> float:
    return min(norm_bound(study, number, layout), LARGEST_NORM)
