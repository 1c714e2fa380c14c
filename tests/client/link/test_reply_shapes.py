"""A vault that is too slow or away is answered for as long as it would answer itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.link.reply_shapes import ReplyShapes
from client.link.vault_client import VaultClient
from shared.private_evaluation.cells import Cells
from shared.protocol.evaluation_records import encode_evaluation_reply
from shared.protocol.messages import EvaluationTask, Status, StudyOffer, without_histogram
from shared.study.declaration import Study

TASK = EvaluationTask("s" * 64, "r-1", 3, np.zeros(2, np.float32))


def content(reply: Any) -> dict[str, Any]:
    return dict(encode_evaluation_reply(reply)["counts"])


@pytest.mark.guarantee("a link's `failed` for a vault that is too slow or away is as long as the vault's own.")
def test_a_vault_that_is_away_fails_as_the_vault_itself_does(tmp_path: Path, make_study: Callable[..., Study]) -> None:
    study = make_study(evaluation={"epsilon": 1.0, "subgroup": {"column": "sex", "values": ["f", "m"]}})
    client = VaultClient(tmp_path / "nothing.sock", patience_s=0.0)
    client.shapes.note(StudyOffer("r-1", study.canonical_json()))
    own = without_histogram(TASK, Status.FAILED, cells=Cells.of(study).length)
    assert content(client.evaluate(TASK)) == content(own)
    client.close()


@pytest.mark.parametrize("study_json", ["", "{", "[]", '{"evaluation": 1}'])
def test_an_offer_that_cannot_be_read_is_the_vaults_to_refuse(study_json: str) -> None:
    shapes = ReplyShapes()
    shapes.note(StudyOffer("r-1", study_json))
    assert len(shapes.failed(TASK, name="").histogram) == 0
