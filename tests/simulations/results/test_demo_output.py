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
)
from simulations.results.summary import worst_of
from simulations.results.tables import render
from tests.support.paths import ROOT

NUMBERS = {"KiB": 2**10, "MiB": 2**20}


def block(document: str, name: str) -> str:
    text = (ROOT / document).read_text()
    (shown,) = re.findall(rf"<!-- {name} -->\n```text\n(.*?)```\n<!-- /demo -->", text, re.S)
    return str(shown)


def rows(title: str) -> list[list[str]]:
    """The cells below a table's rule; two spaces or more stand between them. A lone cell goes on above."""
    table = FULL.split(title)[1].split("─\n")[1].split("\n\n")[0]
    found: list[list[str]] = []
    for line in table.splitlines():
        cells = re.split(r" {2,}", line.strip())
        if len(cells) == 1:
            found[-1][0] += f" {cells[0]}"
        else:
            found.append(cells)
    return found


def number(cell: str) -> Any:
    return None if cell in ("-", "none") else float(cell)


FULL = block("simulations/README.md", "demo")
METRIC = FULL.split(" on ")[0]
HIGHER_IS_BETTER = "lower is better" not in FULL.splitlines()[0]
OTHER_SITES = int((re.findall(r"(\d+) more sites", FULL) or ["0"])[0])
"""Sites that the tables leave out."""


def shown_sites() -> list[str]:
    """The sites that have a column."""
    return re.split(r" {2,}", FULL.split(f"{METRIC} by site\n\n")[1].splitlines()[0].strip())[1:]


def sites() -> list[str]:
    """All sites; those that no table names have made-up names."""
    named = [*shown_sites(), *dict.fromkeys(worst.rpartition(" ")[0] for *_, worst in rows("held-out records"))]
    count = len(shown_sites()) + OTHER_SITES
    known = list(dict.fromkeys(named))
    return known + [f"site {number}" for number in range(count - len(known))]


def counts() -> dict[str, SiteData]:
    """The held-out records of each site; those of sites without a column are made up, their sum is not."""
    title, *cells = rows(f"{METRIC} by site")[-1]
    assert title == "held-out records"
    held_out = dict.fromkeys(sites(), 1) | dict(zip(shown_sites(), map(int, cells), strict=True))
    held_out[sites()[-1]] += int(re.findall(r"on ([\d,]+) held-out", FULL)[0].replace(",", "")) - sum(held_out.values())
    return {
        site: SiteData(rows=0, train=0, holdout=count, evaluated=count, dropped=0, unusable=0)
        for site, count in held_out.items()
    }


def differences() -> dict[str, Difference]:
    """The differences; those in points as hundredths."""
    (unit,) = re.findall(r"Federated minus each other arm, (in points|positive where it is\s+better)", FULL)
    scale = 100 if unit == "in points" else 1
    held_out = sum(site.holdout for site in counts().values())
    return {
        title: Difference(
            value=float(value) / scale,
            low=float(ends.split(" to ")[0]) / scale,
            high=float(ends.split(" to ")[1]) / scale,
            unit="record",
            units=held_out,
        )
        for title, value, ends in rows("Federated minus each other arm, ")
    }


def note_on(title: str) -> str:
    """The sentence on an arm, which begins with its title, below the first tables."""
    lines = FULL.split(f"\n\n{METRIC} by site")[0].splitlines()
    return next((line.removeprefix(f"{title} ") for line in lines if line.startswith(f"{title} ")), "")


def warnings() -> list[str]:
    """The notes at the end, each on one line again."""
    return [" ".join(note.split()) for note in FULL.split("\nnote: ")[1:]]


def arms() -> dict[str, ArmResult]:
    """Every arm as the first two tables show it."""
    by_site = {
        title: dict(zip(shown_sites(), map(float, cells), strict=True))
        for title, *cells in rows(f"{METRIC} by site")[:-1]
    }
    for title, *_, worst in rows("held-out records"):
        site, value = worst.rsplit(" ", 1)
        by_site[title] = dict.fromkeys(sites(), next(iter(by_site[title].values()))) | by_site[title]
        by_site[title][site] = float(value)
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
                metric=METRIC[:1].lower() + METRIC[1:],
                higher_is_better=HIGHER_IS_BETTER,
                value=float(value),
                metrics={},
                per_site=by_site[title],
                worst_site=worst_of(by_site[title], higher_is_better=HIGHER_IS_BETTER),
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
    assert block("README.md", "demo: first table") == FULL.split(f"\n\n{METRIC} by site")[0] + "\n"
