"""Records of three rounds: all accepted; one rejected and one missing; one lost."""

from server.rounds.round import RoundRecord

RECORDS = [
    RoundRecord(1, "aggregated", [11, 12], [11, 12], [], [], [], 100, 80, {"train": 2.0}),
    RoundRecord(
        2, "aggregated", [11, 12, 13], [11], [{"node": 13, "reason": "norm"}], [], [12], 100, 80, {"train": 3.0}
    ),
    RoundRecord(3, "lost", [11], [], [], [{"node": 11, "status": "lost"}], [], 0, 80, {"train": 0.5}),
]
