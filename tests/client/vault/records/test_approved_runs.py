"""A run that was approved without its records keeps them whole, and for this user alone, when they come."""

from collections.abc import Callable
from pathlib import Path

from client.vault.records.approved_runs import ApprovedRuns
from shared.records.ragged import Records
from shared.study.declaration import Study


def test_records_that_come_after_the_approval_are_kept_as_they_are_and_privately(
    tmp_path: Path, make_study: Callable[..., Study], make_records: Callable[..., Records]
) -> None:
    runs, train, holdout = ApprovedRuns(tmp_path), make_records(5), make_records(3, seed=1)
    runs.keep("run", make_study(), declared_size=10)
    assert not runs.taken("run")
    runs.take("run", train=train, holdout=holdout)
    assert runs.taken("run")
    for kept, part in ((runs.train("run"), train), (runs.holdout("run"), holdout)):
        assert [kept.content(index) for index in range(len(kept))] == [part.content(i) for i in range(len(part))]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(path.name for path in files) == ["declared_size.json", "holdout.npz", "study.json", "train.npz"]
    assert {path.stat().st_mode & 0o077 for path in files if path.suffix == ".npz"} == {0}
