"""Refuse a base model that keeps something of what it was given: another's record would show in the next one's answer.

BigBird, left as published, attends to everything from its first short text on; recurrent models may keep states for the
next text. Probes that begin with a model which has already seen a text cannot tell. So a model that has seen nothing
is looked at, given a few synthetic records, and looked at again.
"""

import copyreg
import hashlib
import logging
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Set
from decimal import Decimal
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from shared.errors import ExactnessError

OF_EVERY_MODULE = frozenset(vars(nn.Module())) | {"_output_capturing_hooks_installed", "long_inv_freq"}
"""What libraries keep in a module: weights and buffers are looked at by themselves. transformers says here that its
first pass, of whatever text, has made ready to give inner states out, and what the configuration makes of long ones."""
PLAIN = (
    bool, int, float, complex, str, bytes, bytearray, range, slice, array, Decimal, np.generic,
    torch.dtype, torch.device,
)  # fmt: skip

LARGE = 1 << 24
"""From so many bytes on a tensor is looked at as weights are: which one it is, and how often it was written."""

Seen = dict[int, tuple[int, Any]]
"""Objects by id, with their number."""


def refuse_what_remembers(
    modules: Iterable[nn.Module], answer: Callable[[int], Tensor], records: Iterable[int]
) -> None:
    """Refuse a model whose state, or whose answer to a record, changes with the records that it answers.

    State is compared after each record, since the next one may put it back, and answers are given once more in the
    opposite order, since in the same one each record would have the same one before it. What is written outside a
    module, such as a class, or without a trace in a weight, is seen by what it does to an answer.

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
    first = {}
    for record in order:
        first[record] = answer(record)
        after = state_of_modules(modules)
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        if changed:
            raise _remembers(f"{changed[0]} changed")
    for record in reversed(order):
        if not torch.equal(first[record].nan_to_num(), answer(record).nan_to_num()):
            raise _remembers("a record's answer was another one afterwards")


def _remembers(what: str) -> ExactnessError:
    return ExactnessError(
        f"Expected a base model that keeps nothing of the records it sees, {what} when it saw some.",
        hint="One person's record would show in what it computes for others. Choose another base model.",
    )


def state_of_modules(modules: Iterable[nn.Module]) -> dict[str, str]:
    """Return all that modules keep, by name: what it is, a digest of it, or which weight and how often it was written.

    Raises:
        ExactnessError: something cannot be looked at.
    """
    modules, state = list(modules), dict[str, str]()
    by_id = {id(each): each for model in modules for each in model.modules()}
    known: Seen = {one: (number, each) for number, (one, each) in enumerate(by_id.items())}
    for number, model in enumerate(modules):
        for name, module in model.named_modules():
            place = ".".join(filter(None, (f"part {number}" if number else "", name)))
            own = {key: each for key, each in vars(module).items() if key not in OF_EVERY_MODULE}
            tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            for key, each in {"": type(module).__qualname__, **own, **dict(tensors)}.items():
                where = ".".join(filter(None, (place, key)))
                try:
                    state[where] = _described(each, dict(known))
                except RuntimeError as error:  # a tensor without one storage, or what lies too deep
                    raise ExactnessError(f"Expected state that can be looked at, {where} cannot: {error}") from None
    return state


def _described(value: Any, seen: Seen) -> str:
    if isinstance(value, Tensor):
        return _of_tensor(value)
    if value is None or isinstance(value, PLAIN):
        return repr(value)
    if id(value) in seen:
        return f"{type(value).__qualname__} {seen[id(value)][0]}"
    seen[id(value)] = len(seen), value  # kept alive: the number of what is gone may become another's
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key!r}: {_described(each, seen)}' for key, each in value.items())}}}"
    if isinstance(value, np.ndarray):
        held = _described(value.tolist(), seen) if value.dtype.hasobject else _digest(value.tobytes())
        return f"{value.dtype} {value.shape} {held}"
    if isinstance(value, list | tuple | deque):
        return f"[{', '.join(_described(each, seen) for each in value)}]"
    if isinstance(value, Set):
        return f"{{{', '.join(sorted(_described(each, seen) for each in value))}}}"
    if isinstance(value, type | ModuleType | logging.Logger):
        return f"{type(value).__qualname__} {getattr(value, '__name__', '')}"
    return f"{type(value).__qualname__} {_described(_attributes(value), seen)}"


def _of_tensor(value: Tensor) -> str:
    if value.is_meta:
        return f"{value.dtype} {tuple(value.shape)}"
    if isinstance(value, nn.Parameter) or value.nbytes > LARGE:
        return f"{value.dtype} {tuple(value.shape)} {id(value)} written {value._version} times"
    plain = value.detach().resolve_conj().resolve_neg().cpu().contiguous()
    return f"{value.dtype} {tuple(value.shape)} {_digest(plain.view(-1).view(torch.uint8).numpy().tobytes())}"


def _digest(held: bytes) -> str:
    return hashlib.sha256(held).hexdigest()


def _attributes(value: Any) -> dict[str, Any]:
    if isinstance(value, torch.Generator):
        return {"state": value.get_state()}
    if isinstance(value, partial):
        return {"func": value.func, "args": value.args, "keywords": value.keywords}
    fixed = {name: getattr(value, name) for name in copyreg._slotnames(type(value)) if hasattr(value, name)}  # type: ignore[attr-defined]
    return fixed | dict(getattr(value, "__dict__", {}))
