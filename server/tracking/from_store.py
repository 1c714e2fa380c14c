"""Makes curves of what the run store knows: figures of rounds and nodes, and nothing about anybody's records."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from server.export.run_report import run_report
from server.private_evaluation.results import evaluations_of
from server.run_store.store import Store
from server.run_store.values import Run
from server.tracking.curves import Curves, Ending, finite, flattened, of_evaluations

ENDINGS: Mapping[str, Ending] = {"finished": "finished", "failed": "failed", "stopped": "stopped"}


def curves_of(store: Store, run: Run, adapter: Path, further: Sequence[Path] = ()) -> Curves:
    """Return a run's curves as the store has them now.

    Args:
        store: open.
        run: of the store.
        adapter: the folder of its adapter, with its card, once it is finished.
        further: other files to keep with it, such as its report.
    """
    run = store.run(run.id)
    report = run_report(store, run, adapter)
    tags = {"study_sha256": run.study_sha256, "delta": f"{report.study.delta:g}", "unit": report.study.unit}
    tags |= {f"epsilon.{house.name}": f"{house.epsilon:.6f}" for house in report.houses}
    if report.adapter_sha256:
        tags["adapter_sha256"] = report.adapter_sha256
    return Curves(
        key=run.id,
        name=f"{run.study.study.name} {run.id}",
        params=flattened(run.study.model_dump(mode="json")),
        tags=tags,
        rounds={record["round"]: _metrics(record, evaluation) for record, evaluation in store.rounds(run.id)},
        ending=ENDINGS.get(run.state, "running"),
        artifacts=(adapter,) if adapter.exists() else (),
        also=tuple(further),
        evaluations=of_evaluations(evaluations_of(store, run).all),
    )


def _metrics(record: Mapping[str, Any], evaluation: Mapping[str, Any] | None) -> dict[str, float]:
    counts = {name: len(record[name]) for name in ("asked", "accepted", "rejected", "refused", "missing")}
    seconds = {f"seconds/{name}": value for name, value in record["seconds"].items()}
    moved = {
        "bytes/down": record["bytes_down_per_node"] * len(record["asked"]),
        "bytes/up": record["bytes_up_per_node"] * (len(record["accepted"]) + len(record["rejected"])),
    }
    nodes = {f"nodes/{name}": count for name, count in counts.items()}
    return finite({**(evaluation or {}), **nodes, **seconds, **moved})
