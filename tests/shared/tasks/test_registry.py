"""The kinds of task that there are stand in one list; everything else follows it."""

from pathlib import Path

import pytest
from pydantic import TypeAdapter

from shared.study.tasks import KINDS, MEDIA, Task
from shared.tasks import registry
from shared.tasks.kind import TaskKind
from tests.support.task_examples import EXAMPLES


def example(kind: str) -> TaskKind:
    task: Task = TypeAdapter(Task).validate_python({"kind": kind, **EXAMPLES[kind].declared})
    return registry.task_kind(task)


def test_every_kind_is_tested_on_an_example() -> None:
    assert EXAMPLES.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_file_and_a_class_of_its_name(kind: str) -> None:
    found = example(kind)
    assert type(found).__name__ == KINDS[kind].__name__
    assert (Path(registry.__file__).parent / f"{kind.replace('-', '_')}.py").is_file()
    assert type(found).__doc__ == f"The kind `{kind}`."


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_reads_as_files_what_nodes_read_as_files(kind: str) -> None:
    columns = example(kind).columns
    assert [column.name for column in columns if column.media] == [c.name for c in columns if c.name in MEDIA]
