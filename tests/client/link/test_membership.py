"""What joining and leaving keep in the link's folder."""

import json
from pathlib import Path

from client.link.membership import leave


def test_leaving_takes_the_messages_that_wait_along(tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "a.message").write_bytes(b"a task of a federation that was left")
    for name in ("membership.json", "node.key"):
        (tmp_path / name).write_text(json.dumps({}))
    leave(tmp_path)
    assert list(tmp_path.iterdir()) == []
