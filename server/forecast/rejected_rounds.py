"""Studies whose honest updates the server would keep out: found before anybody pays for them."""

from server.app import norm_bound
from server.rounds.update_filter import LARGEST_NORM
from shared.adapted_model.adapters import Layout
from shared.errors import SettingsError
from shared.privacy.noise_schedule import plan
from shared.privacy.signal_to_noise import shortest_noise
from shared.privacy.study_steps import batch_of, parts_in, round_steps
from shared.search import smallest
from shared.study.declaration import Study

MOST_DECLARED = 10**9


def rounds_kept_out(study: Study, layout: Layout, *, declared: int) -> list[int]:
    """Rounds in which a node of this size is certain to be kept out: its noise alone is longer than the server accepts.

    Such a round is trained, paid for in privacy, and thrown away. "Certain" is but for a probability of e^-18, and for
    a signal that happens to cancel the noise.
    """
    planned, batch = plan(study.privacy, steps=study.total_steps), batch_of(study, declared)

    def shortest(number: int) -> float:
        return shortest_noise(parts_in(study, layout.tensors, number), round_steps(study, planned, batch, number))

    numbers = range(1, 1 + study.federation.rounds)
    return [number for number in numbers if shortest(number) > _accepted(study, layout, number)]


def smallest_size_let_in(study: Study, layout: Layout) -> int | None:
    """The smallest declared size whose updates may pass in every round; None if no practical size is enough."""
    return smallest(
        lambda size: not rounds_kept_out(study, layout, declared=size),
        least=study.federation.smallest_declared_size,
        most=MOST_DECLARED,
    )


def refuse_what_is_kept_out(study: Study, layout: Layout) -> None:
    """Refuse a study that admits nodes only to throw their updates away.

    Raises:
        SettingsError: a node of the smallest size admitted is certain to be kept out of a round that it pays for.
    """
    smallest = study.federation.smallest_declared_size
    rounds = rounds_kept_out(study, layout, declared=smallest)
    if not rounds:
        return
    hint = "Lower learning rates or trained entries, or raise privacy.epsilon or privacy.sampling_rate"
    if study.federation.typical_size is not None:
        hint += ", or raise federation.typical_size"
    elif (enough := smallest_size_let_in(study, layout)) is not None:
        hint += f", or set federation.smallest_declared_size to {enough} or more"
    raise SettingsError(
        f"Expected updates that the server accepts from every site that the study admits, got noise longer than "
        f"{_accepted(study, layout, rounds[0]):.0f} at one of federation.smallest_declared_size={smallest} in "
        f"{len(rounds)} of {study.federation.rounds} rounds.",
        hint=f"{hint}. Such rounds would be paid for and thrown away; --force runs the study all the same.",
    )


def _accepted(study: Study, layout: Layout, number: int) -> float:
    return min(norm_bound(study, number, layout), LARGEST_NORM)
