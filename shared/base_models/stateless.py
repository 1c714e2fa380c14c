"""Refuse a base model that keeps something of what it was given: another's record would show in the next one's answer.

BigBird, left as published, attends to everything from its first short text on; recurrent models may keep states for the
next text. Probes that begin with a model which has already seen a text cannot tell. So a model that has seen nothing
is looked at, given a few synthetic records, and looked at again.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from shared.errors import ExactnessError

OF_EVERY_MODULE = frozenset(vars(nn.Module())) | {"_output_capturing_hooks_installed"}
"""What libraries keep in a module: weights and buffers are looked at by themselves, and transformers says here that its
first pass, of whatever text, has made ready to give inner states out."""


def refuse_what_remembers(
    modules: Iterable[nn.Module], answer: Callable[[int], Tensor], records: Iterable[int]
) -> None:
    """Refuse a model whose state, or whose answer to a record, changes with the records that it answers.

    Guarantee: a base model that keeps anything of a record for the next one is refused before it sees a real one.

    Args:
        modules: of a model that has answered nothing yet.
        answer: runs the model on one synthetic record, by itself, and returns what it computes.
        records: those to be answered, the longest of them first.

    Raises:
        ExactnessError: something changed; it is named.
    """
    modules, order = list(modules), list(records)
    before = state_of_modules(modules)
    first = [answer(record) for record in order]
    after = state_of_modules(modules)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    again = [answer(record) for record in order]
    same = (torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(first, again, strict=True))
    if not changed and all(same):
        return
    what = f"{changed[0]} changed" if changed else "a record's answer was another one afterwards"
    raise ExactnessError(
        f"Expected a base model that keeps nothing of the records it sees, {what} when it saw some.",
        hint="One person's record would show in what it computes for others. Choose another base model.",
    )


def state_of_modules(modules: Iterable[nn.Module]) -> dict[str, str]:
    """Return all that modules keep, by name: what it is, a digest of it, or how often a weight was written."""
    state: dict[str, str] = {}
    for number, model in enumerate(modules):
        for name, module in model.named_modules():
            place = ".".join(filter(None, (str(number or ""), name)))
            own = {key: each for key, each in vars(module).items() if key not in OF_EVERY_MODULE}
            weights = {key: each._version for key, each in module.named_parameters(recurse=False)}
            looked_at = {"": type(module).__qualname__, **own, **weights, **dict(module.named_buffers(recurse=False))}
            state |= {".".join(filter(None, (place, key))): _described(each, {}) for key, each in looked_at.items()}
    return state


def _described(value: Any, seen: dict[int, Any]) -> str:
    if isinstance(value, Tensor):
        if value.is_meta:
            return f"{value.dtype} {tuple(value.shape)}"
        held = value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        return f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(held).hexdigest()}"
    if value is None or isinstance(value, bool | int | float | str | bytes | torch.dtype | torch.device):
        return repr(value)
    if id(value) in seen or isinstance(value, nn.Module):
        return type(value).__qualname__  # a module among the others, or one that says its own
    seen[id(value)] = value  # kept alive: the number of what is gone may become another's
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key!r}: {_described(each, seen)}' for key, each in value.items())}}}"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} {_described(value.tolist(), seen)}"
    if isinstance(value, list | tuple | deque):
        return f"[{', '.join(_described(each, seen) for each in value)}]"
    if isinstance(value, Set):
        return f"{{{', '.join(sorted(_described(each, seen) for each in value))}}}"
    return f"{type(value).__qualname__} {_described(_attributes(value), seen)}"


def _attributes(value: Any) -> dict[str, Any]:
    slots = [vars(kind).get("__slots__", ()) for kind in type(value).__mro__]
    names = [name for some in slots for name in ([some] if isinstance(some, str) else some)]
    fixed = {name: getattr(value, name) for name in names if name != "__dict__" and hasattr(value, name)}
    return fixed | dict(getattr(value, "__dict__", {}))
