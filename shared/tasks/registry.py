"""From the kind that a study names to the class that carries it out.

Each kind is one file beside this one, named like the kind, with a class named like its declaration. It is imported when
a study asks for it, so a process loads the kinds that it uses and no others.
"""

from importlib import import_module

from shared.study.tasks import Task
from shared.tasks.kind import TaskKind


def task_kind(task: Task) -> TaskKind:
    """Make the kind that a study declares."""
    module = import_module(f"shared.tasks.{task.kind.replace('-', '_')}")
    kind: TaskKind = getattr(module, type(task).__name__)(task)
    return kind
