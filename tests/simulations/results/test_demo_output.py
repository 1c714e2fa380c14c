"""The demo's output in the documents has the very form that `make demo` prints."""

import re
from typing import Any

from rich.console import Console

from simulations.results.result import (
    ArmResult,
    Bytes,
    Difference,
    Quality,
    Result,
    SiteData,
    SitePrivacy,
    worst_of,
)
from simulations.results.tables import render
from tests.support.paths import ROOT

NUMBERS = {"KiB": 2**10, "MiB": 2**20}


def block(document: str, name: str) -> str:
    text = (ROOT / document).read_text()
    (shown,) = re.findall(rf"<!-- {name} -->\n```text\n(.*?)```\n<!-- /demo -->", text, re.S)
    return str(shown)


def rows(title: str) -> list[list[str]]:
    """The cells below a table's rule; two spaces or more stand between them."""
    table = FULL.split(title)[1].split("─\n")[1].split("\n\n")[0]
    return [re.split(r" {2,}", line.strip()) for line in table.splitlines()]


def number(cell: str) -> Any:
    return None if cell in ("-", "none") else float(cell)


FULL = block("simulations/README.md", "demo")


def counts() -> dict[str, SiteData]:
    """The held-out records of each site."""
    header = re.split(r" {2,}", FULL.split("Accuracy by site\n\n")[1].splitlines()[0].strip())
    title, *cells = rows("Accuracy by site")[-1]
    assert title == "held-out records"
    return {
        site: SiteData(rows=0, train=0, holdout=int(cell), evaluated=int(cell), dropped=0, unusable=0)
        for site, cell in zip(header[1:], cells, strict=True)
    }


def differences() -> dict[str, Difference]:
    """The differences in points, as hundredths."""
    held_out = sum(site.holdout for site in counts().values())
    return {
        title: Difference(
            value=float(value) / 100,
            low=float(ends.split(" to ")[0]) / 100,
            high=float(ends.split(" to ")[1]) / 100,
            unit="record",
            units=held_out,
        )
        for title, value, ends in rows("Federated minus each other arm, in points")
    }


def note_on(title: str) -> str:
    """The sentence on an arm, which begins with its title, below the first tables."""
    lines = FULL.split("\n\nAccuracy by site")[0].splitlines()
    return next((line.removeprefix(f"{title} ") for line in lines if line.startswith(f"{title} ")), "")


def warnings() -> list[str]:
    """The notes at the end, each on one line again."""
    return [" ".join(note.split()) for note in FULL.split("\nnote: ")[1:]]


def arms() -> dict[str, ArmResult]:
    """Every arm as the first two tables show it."""
    sites = re.split(r" {2,}", FULL.split("Accuracy by site\n\n")[1].splitlines()[0].strip())[1:]
    by_site = {
        title: dict(zip(sites, map(float, cells), strict=True)) for title, *cells in rows("Accuracy by site")[:-1]
    }
    return {
        title: ArmResult(
            title=title,
            private=epsilon != "none",
            epsilon=number(epsilon),
            rows=int(count) if count != "-" else 0,
            units=int(count) if count != "-" else 0,
            sampling_rate=None,
            steps=int(steps) if steps != "-" else 0,
            seconds=float(seconds),
            quality=Quality(
                metric="accuracy",
                higher_is_better=True,
                value=float(value),
                metrics={},
                per_site=by_site[title],
                worst_site=worst_of(by_site[title], higher_is_better=True),
            ),
            note=note_on(title),
        )
        for title, count, steps, seconds, epsilon, value, _ in rows("held-out records")
    }


def privacy() -> dict[str, SitePrivacy]:
    unit, adjacency, sampling, clipping = re.findall(r"Privacy spent: (\w+), (.*?), (\w+), (\w+) clipping", FULL)[0]
    return {
        site: SitePrivacy(
            epsilon_rdp=float(rdp),
            epsilon_prv=float(prv),
            delta=float(delta),
            noise_multiplier=float(sigma),
            sampling_rate=float(rate),
            steps=int(steps),
            unit=unit,
            adjacency=adjacency,
            sampling=sampling,
            accountant="RDP",
            clipping=clipping,
            clip_norm=1.0,
            declared_size=int(declared),
            seeded_noise=True,
        )
        for site, rdp, prv, delta, sigma, rate, steps, declared in rows("Privacy spent")
    }


def sizes() -> Bytes:
    cost = " ".join(FULL.split("What it took")[1].split())
    up, down, float32, bfloat16, int8, lora, model = (
        round(float(value) * NUMBERS[unit]) for value, unit in re.findall(r"([\d.]+) (KiB|MiB)", cost)
    )
    return Bytes(
        up_per_node_round=up,
        down_per_node_round=down,
        up_by_wire={"float32": float32, "bfloat16": bfloat16, "int8": int8},
        full_lora_up=lora,
        full_model_up=model,
    )


def read_back() -> Result:
    """The result that the documents show."""
    shown = arms()
    cost = " ".join(FULL.split("seconds by phase")[1].split("\n\n")[0].split())
    return Result(
        fedvault_version="",
        study_sha256="",
        scenario={},
        rounds=[],
        final=shown["federated"].quality,
        arms=shown,
        baselines={},
        privacy=privacy(),
        bytes=sizes(),
        timing={name: float(seconds) for name, seconds in re.findall(r"([\w:-]+) ([\d.]+)", cost)},
        differences=differences(),
        data=counts(),
        warnings=warnings(),
    )


def test_the_guide_shows_what_the_demo_prints() -> None:
    console = Console(width=80, record=True)
    render(read_back(), console)
    printed = "\n".join(line.rstrip() for line in console.export_text().splitlines())
    assert printed.strip("\n").split("\n\n") == FULL.strip("\n").split("\n\n")


def test_the_readme_shows_the_first_table_of_it() -> None:
    assert block("README.md", "demo: first table") == FULL.split("\n\nAccuracy by site")[0] + "\n"
