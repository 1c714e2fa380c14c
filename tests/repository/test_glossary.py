"""One thing has one name: `shared/GLOSSARY.md` in code, options, JSON, output and documents.

The words below were replaced. Where one may still stand, the reason is beside it; an allowance that nothing needs
fails.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
import typer

from tests.support.documents import DOCUMENTS, text_of
from tests.support.paths import ROOT

PRODUCT = ("client", "server", "shared", "simulations")
PARTS = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")
HASHED = "a study's key, which is in its hash"
RECORDED = "reads what was recorded under the old name"


class Replaced(NamedTuple):
    """A word that was replaced."""

    now: str
    allowed: Mapping[str, str] = {}
    """Files in which it may stand, and why."""


WORDS = {
    "prefix": Replaced(
        "frozen activations",
        {
            "shared/study/declaration.py": RECORDED,
            "shared/study/sections.py": "the beginning of a model's name",
            "shared/study/tasks.py": f"T5's own word for the text before a source; {HASHED}",
            "shared/tasks/multi_task.py": "the beginning of a tensor's name",
            "simulations/datasets/text/tweet_tasks.py": "the letter before an entity's tag",
        },
    ),
    "judge": Replaced("evaluate, or check"),
    "judged": Replaced("evaluated, or checked"),
    "judging": Replaced("evaluation, or update filter"),
    "embedded": Replaced("bundled", {"shared/base_models/layers.py": "stands in for a model's embeddings"}),
    "foundation": Replaced("base model"),
    "remedies": Replaced("suggestions"),
    "doorway": Replaced("gateway"),
    "approving": Replaced("ApprovedOnly"),
    "stances": Replaced("answers, or present", {"server/earlier_names.py": RECORDED}),
    "intake": Replaced("update filter"),
    "quarantine": Replaced("reject"),
    "quarantined": Replaced("rejected", {"server/earlier_names.py": RECORDED}),
    "desk": Replaced("review"),
    "weighed": Replaced("reviewed"),
    "books": Replaced("ledger state"),
    "anchor": Replaced("index digest"),
    "acceptance": Replaced("recovery"),
    "accountable": Replaced("charged round"),
    "ownerless": Replaced("NO_UNIT"),
    "online": Replaced("present"),
    "promised": Replaced("earmarked"),
    "central": Replaced("pooled"),
    "skipped": Replaced("lost", {"server/earlier_names.py": RECORDED}),
}
"""Never a part of an identifier: of functions, classes, arguments, variables, JSON keys, modules, commands, options."""

NAMES = {
    "found": Replaced("what it is"),
    "told": Replaced("what it is"),
    "said": Replaced("what it is"),
    "kept": Replaced("what it is"),
    "every": Replaced("what they are"),
    "whole": Replaced("what it is"),
    "loud": Replaced("what it is"),
    "heard": Replaced("events"),
    "planned": Replaced("schedule, or forecast"),
    "alone": Replaced("single site"),
    "everyone": Replaced("AllPresent, or all sites"),
    "beyond": Replaced("after_break"),
    "begun": Replaced("a verb"),
    "driven_run": Replaced("drive_run"),
    "per_example": Replaced("linear_gradients"),
    "vectorised": Replaced("vmap_gradients"),
    "noise_ahead": Replaced("noise_prefetch"),
    "plain_training": Replaced("without_privacy"),
    "plan_text": Replaced("forecast text"),
    "kept_out": Replaced("rejected"),
    "second": Replaced(
        "second_copy, or what it is",
        {
            "shared/tasks/question_answering.py": "the second of two texts",
            "shared/tasks/texts.py": "the second of two texts",
        },
    ),
    "site-alone": Replaced("single-site"),
    "prefix_cache": Replaced("activation_cache", {"shared/study/declaration.py": RECORDED}),
    "prefix_storage": Replaced("activation_storage", {"shared/study/declaration.py": RECORDED}),
}
"""Never a whole identifier, a leading underscore aside."""

ROOMS = {
    "wire": Replaced("update_encoding"),
    "planning": Replaced("noise_schedule"),
    "peer": Replaced("client_certificate", {"shared/protocol/messages.py": "another node, to those of a secure sum"}),
    "side": Replaced("deployment"),
    "standing": Replaced("status"),
    "accounts": Replaced("ledger_report"),
    "mark": Replaced("LedgerPosition"),
    "question": Replaced("StudySummary"),
    "terms": Replaced("DatasetTerms"),
    "condition": Replaced("LedgerDamage"),
    "attempts": Replaced("Trainer"),
    "answerstasks": Replaced("Trainer"),
    "trains": Replaced("Trainer"),
    "vaults": Replaced("NodeVault"),
    "warm": Replaced("LoadedRun"),
    "role": Replaced("Split"),
    "roles": Replaced("splits"),
    "exactness": Replaced("gradient_probe"),
}
"""Never the name of a file or a class; inside them such a word may be the right one."""

CHANGELOG, GLOSSARY = "CHANGELOG.md", "shared/GLOSSARY.md"
TELLS = {CHANGELOG: "says what was renamed", GLOSSARY: "says what a thing is not called"}
OUTPUT = {
    r"quarantin\w+": Replaced(
        "reject", {**TELLS, "server/earlier_names.py": RECORDED, "simulations/results/result.py": RECORDED}
    ),
    r"online": Replaced("present", {**TELLS, "server/flower/control.py": "Flower's own word for a node's state"}),
    r"(?:keep|keeps|kept) out": Replaced("reject", {GLOSSARY: TELLS[GLOSSARY]}),
    r"doorway|desk|books": Replaced("gateway, review, ledger", {GLOSSARY: TELLS[GLOSSARY]}),
    r"stances": Replaced("answers", {CHANGELOG: TELLS[CHANGELOG], "server/earlier_names.py": RECORDED}),
    r"judging": Replaced("evaluation", {GLOSSARY: TELLS[GLOSSARY]}),
    r"prefix_\w+": Replaced("activation_…", {CHANGELOG: TELLS[CHANGELOG], "shared/study/declaration.py": RECORDED}),
    r"site-alone": Replaced(
        "single-site",
        {
            CHANGELOG: TELLS[CHANGELOG],
            "simulations/experiment/arms.py": "the name of a random stream, so that figures stay",
            "simulations/DECISIONS.md": "says why that stream keeps its name",
        },
    ),
    r"embedded:\w*": Replaced(
        "bundled:",
        {
            CHANGELOG: TELLS[CHANGELOG],
            "shared/DECISIONS.md": "says why studies keep it",
            "shared/study/sections.py": HASHED,
        },
    ),
}
"""Never in a string of the product, nor in a document: help, output, logs, JSON."""


class Module(NamedTuple):
    """What one file names and says."""

    identifiers: frozenset[str]
    classes: frozenset[str]
    strings: tuple[str, ...]


def read(name: str, code: str) -> Module:
    nodes = list(ast.walk(ast.parse(code)))
    constants = [node.value for node in nodes if isinstance(node, ast.Constant)]
    return Module(
        frozenset([Path(name).stem, *(word for node in nodes for word in identifiers(node))]),
        frozenset(node.name for node in nodes if isinstance(node, ast.ClassDef)),
        tuple(value for value in constants if isinstance(value, str)),
    )


def identifiers(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.FunctionDef(name=word) | ast.ClassDef(name=word) | ast.arg(arg=word):
            yield word
        case ast.Name(id=word, ctx=ast.Store()) | ast.Attribute(attr=word, ctx=ast.Store()):
            yield word
        case ast.Dict(keys=keys):
            yield from (key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str))


def parts(name: str) -> set[str]:
    return {part.lower() for part in PARTS.findall(name)}


@cache
def files() -> Mapping[str, Module]:
    """The product's modules, by path."""
    paths = [path for part in PRODUCT for path in (ROOT / part).rglob("*.py") if "_generated" not in path.parts]
    return {name: read(name, path.read_text()) for path in paths if (name := str(path.relative_to(ROOT)))}


def commands_and_options(command: Any) -> Iterator[str]:
    yield command.name
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            yield from commands_and_options(inner)


def hold(uses: Mapping[str, set[str]], replaced: Replaced) -> None:
    """Check where a word stands: `uses` has the names or texts of each file that bear it."""
    used = {file: words for file, words in uses.items() if words}
    assert {file: words for file, words in used.items() if file not in replaced.allowed} == {}, f"say {replaced.now}"
    assert replaced.allowed.keys() <= used.keys(), "allowed where it is not needed"


@pytest.mark.parametrize("word", WORDS)
def test_a_replaced_word_is_no_part_of_an_identifier(word: str) -> None:
    uses = {file: {name for name in module.identifiers if word in parts(name)} for file, module in files().items()}
    hold(uses, WORDS[word])


@pytest.mark.parametrize("name", NAMES)
def test_a_replaced_name_is_no_identifier(name: str) -> None:
    uses = {file: {i for i in module.identifiers if i.strip("_").lower() == name} for file, module in files().items()}
    hold(uses, NAMES[name])


@pytest.mark.parametrize("room", ROOMS)
def test_a_replaced_room_is_neither_a_file_nor_a_class(room: str) -> None:
    uses = {
        file: {name for name in (*module.classes, *Path(file).with_suffix("").parts) if name.strip("_").lower() == room}
        for file, module in files().items()
    }
    hold(uses, ROOMS[room])


@pytest.mark.parametrize("pattern", OUTPUT)
def test_a_replaced_word_is_in_no_output_and_no_document(pattern: str) -> None:
    texts = {file: "\n".join(module.strings) for file, module in files().items()}
    texts |= {document: text_of(document) for document in DOCUMENTS}
    hold(
        {file: set(re.findall(rf"\b(?:{pattern})(?!\w)", text, re.I)) for file, text in texts.items()}, OUTPUT[pattern]
    )


@pytest.mark.parametrize(
    "code",
    [
        "def desk(): ...",
        "class OldDesk: ...",
        "f = lambda desk: 0",
        "desk_row = 1",
        "self._desk = 1",
        "{'the desk': 1}",
    ],
)
def test_a_word_is_seen_wherever_a_name_is_made(code: str) -> None:
    assert any("desk" in parts(name) for name in read("room.py", code).identifiers)


def test_no_command_or_option_bears_a_replaced_word() -> None:
    from client.cli import cli as node
    from server.cli.app import cli as server
    from simulations.cli import cli as sim

    names = {name for program in (node, server, sim) for name in commands_and_options(typer.main.get_command(program))}
    assert {name for name in names if parts(name) & {*WORDS, *NAMES}} == set()


def test_the_glossary_and_this_list_name_the_same_words() -> None:
    rows = [line.split("|") for line in text_of(GLOSSARY).splitlines() if line.startswith("| **")]
    terms = [re.sub(r"\*", "", row[1]).strip() for row in rows]
    assert 20 <= len(terms) == len(set(terms))
    replaced = {word.strip() for row in rows for word in row[3].split(",") if word.strip()}
    here = {*WORDS, *NAMES, *ROOMS}
    assert {word for word in replaced if word not in here and not any(re.fullmatch(p, word) for p in OUTPUT)} == set()
