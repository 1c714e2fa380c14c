"""The largest histogram that a study may declare comes through the gateway; a larger one is refused with the study."""

from collections.abc import Callable

import numpy as np

from server.flower.reply_size import BESIDE_UPDATE_BYTES
from server.private_evaluation.asking import histogram_bytes
from server.settings import ServerSettings
from shared.private_evaluation.cells import Cells
from shared.protocol.evaluation_records import decode_evaluation_reply, encode_evaluation_reply
from shared.protocol.messages import EvaluationReply, LedgerPosition, Status
from shared.secure_sum.messages import most_masked_bytes
from shared.study.declaration import Study
from shared.study.evaluation import MOST_CELLS

Make = Callable[..., Study]


def test_the_largest_histogram_that_a_study_may_declare_fits_into_a_reply(make_study: Make) -> None:
    """The gateway holds a node to what the run says; a server's own limit on bodies is a MiB at the least."""
    most = {"values": [f"v{n}" for n in range(50)], "column": "c"}
    labels = [f"l{n}" for n in range(35)]
    for mode in (None, "masked"):
        study = make_study(
            task={"labels": labels},
            federation={} if mode is None else {"secure_sum": mode},
            evaluation={"epsilon": 1, "cells": "confusion", "subgroup": most},
        )
        assert 0.9 * MOST_CELLS < Cells.of(study).length <= MOST_CELLS
        counts = np.zeros(Cells.of(study).length, np.int64)
        masked = b"" if mode is None else bytes(most_masked_bytes(len(counts)))
        histogram = counts if mode is None else counts[:0]
        reply = EvaluationReply("r" * 80, 3, "a" * 64, Status.EVALUATED, histogram, LedgerPosition(), masked)
        records = encode_evaluation_reply(reply)
        size = sum(len(record.deflate()) for record in records.values())
        assert size <= histogram_bytes(study) + BESIDE_UPDATE_BYTES <= 2**20
        read = decode_evaluation_reply(records)
        assert (read.masked, len(read.histogram)) == (masked, len(histogram))
    body_limit = ServerSettings.model_fields["largest_body_bytes"].metadata
    assert any(getattr(one, "ge", 0) >= 2**20 for one in body_limit), "no server takes less"
