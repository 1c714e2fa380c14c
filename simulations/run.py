"""Run a scenario: prepare the data, train every arm, compare, and leave a folder that explains itself.

A run can be cut at any moment and resumed: arms that are done are not run again, and the one in progress continues
after its last round.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from client.vault.training.round_trainer import device_for
from server.export.adapter import export
from server.rounds.checkpoints import State
from shared.adapted_model.dry_run import rehearse
from shared.adapted_model.model import build, layout_of
from shared.errors import FedVaultError, SettingsError
from shared.evidence.audit_result import AuditResult, read_audit, write_audit
from shared.logs import without_stopping
from shared.tasks.registry import task_kind
from simulations.arm_training import OURS, ArmTraining
from simulations.audit.scenario_audit import attacks, audit_scenario
from simulations.baselines import constant_answer, personal_arm, untrained_head
from simulations.engines.local import Engine, LocalEngine
from simulations.engines.worker import Seen
from simulations.experiment.arms import Arm, arm_folder, left_out, trained_arms, write_arm
from simulations.experiment.plugins_used import plugins_used
from simulations.experiment.prepare import prepare
from simulations.experiment.scenario import Scenario
from simulations.experiment.sites import Prepared, held_out_groups, held_out_rows, is_saved, reopen, subgroups_of
from simulations.progress import Progress
from simulations.results.model_card import write_card
from simulations.results.paired import below_twins, differences
from simulations.results.report import UNPROTECTED
from simulations.results.result import ArmResult, Difference, Result, TroubleResult, read_result, write_result
from simulations.results.stored_tables import predictions_frame, write_tables
from simulations.results.subgroups import subgroups_of_arm
from simulations.results.summary import quality, sizes_of_updates, summary, trained
from simulations.results.trouble import sentences, trouble_of
from simulations.run_folder import RunFolder
from simulations.run_identity.source import digests
from simulations.server_crash import crash_of
from simulations.sites.measured import norms_by_round


class Run:
    """One run of one scenario in one folder.

    Args:
        scenario: what to run.
        source: the table.
        folder: for everything that is written.
        progress: is lines how far the run is.
        cache: folder for activations that several runs on the same records share, and that stays; default: this run's.
        ray_address: of a cluster for the engine `ray`; where a run computes is no part of what it is.

    Raises:
        SettingsError: an address for another engine.
    """

    def __init__(
        self,
        scenario: Scenario,
        source: Path,
        folder: Path,
        progress: Progress,
        *,
        cache: Path | None = None,
        ray_address: str | None = None,
    ) -> None:
        if ray_address is not None and scenario.simulation.engine != "ray":
            raise SettingsError("Expected no --ray-address for the local engine, got one.", hint="--engine ray")
        self._scenario, self._source, self._cache, self._ray_address = scenario, source, cache, ray_address
        self._folder = RunFolder(folder)
        self.progress = progress

    def open(self, *, resume: bool) -> None:
        """Claim the folder.

        Raises:
            SettingsError: it holds a run and `resume` was not asked for, a run of another scenario or of other data, or
                other files.
            RunError: another process goes on with the run in it.
        """
        self._folder.claim(self._scenario, lambda: digests(self._scenario, self._source), resume=resume)

    def execute(self) -> Result:
        """Run everything that is not done yet; return the result after writing it, and leave the folder free."""
        try:
            return self._execute()
        finally:
            self._folder.done()

    def _execute(self) -> Result:
        folder = self._folder
        if folder.result.exists():
            return read_result(folder.result)
        folder.note_plugins(plugins_used(self._scenario, splits=not is_saved(folder.prepared)))
        prepared, arms = self._prepare()
        sizes, faults = sizes_of_updates(self._scenario.as_study()), list[str]()
        for arm in arms:
            write_arm(arm, folder.path)
        engine = self._engine()
        try:
            results, predictions, state, evaluated_privately = self._run_arms(engine, arms, prepared)
        finally:
            engine.close()
        # whatever fails from here on, what was trained is written
        with folder.timed("export"), without_stopping("The exported adapter", faults):
            export(self._scenario.as_study(), state.adapter, folder.adapter)
        self.progress.phase("compare")
        compared = dict[str, Difference]()
        with folder.timed("compare"), without_stopping("The differences between arms", faults):
            kind, groups = task_kind(self._scenario.task), held_out_groups(prepared, self._scenario.held_out_unit)
            compared |= differences(kind, predictions, groups)
            for name, note in below_twins(kind, predictions, groups).items():
                results[name] = results[name].model_copy(update={"note": note})
        with without_stopping("The subgroups", faults):
            self._compare_subgroups(prepared, predictions, results)
        evaluated = {seen.site: len(seen.evidence) for seen in predictions["federated"]}
        audited = self._audited(prepared, faults)
        result = summary(self._scenario, prepared, results, state, folder.timing, compared, evaluated, sizes)
        trouble = self._trouble(prepared, arms, state)
        lines = [*result.warnings, *left_out(self._scenario.simulation, results), *sentences(trouble)]
        norms = norms_by_round(arm_folder(folder.path, OURS), {site.name: site.index for site in prepared.sites})
        rounds = [one.model_copy(update={"update_norms": norms.get(one.round, {})}) for one in result.rounds]
        more = {"audit": audited, "trouble": trouble, "warnings": lines, "plugins": folder.plugins(), "rounds": rounds}
        result = result.model_copy(update=more | evaluated_privately)
        with without_stopping("The model card", faults):
            write_card(folder.adapter, self._scenario, result)
        with without_stopping("The tables as Parquet", faults):
            wanted, kind = self._scenario.simulation.predictions, task_kind(self._scenario.task)
            rows = held_out_rows(prepared)
            write_tables(folder.tables, result, predictions_frame(predictions, kind, rows) if wanted else None)
        result = result.model_copy(update={"warnings": [*result.warnings, *faults]})
        write_result(folder.result, result)
        if self._cache is None:
            shutil.rmtree(folder.cache, ignore_errors=True)
        return result

    def _compare_subgroups(
        self, prepared: Prepared, predictions: dict[str, list[Seen]], results: dict[str, ArmResult]
    ) -> None:
        groups = held_out_groups(prepared, self._scenario.held_out_unit)
        two_labels = len(getattr(self._scenario.task, "labels", ())) == 2
        if groups is None:
            return
        plain = predictions.get(UNPROTECTED)
        for column, values in subgroups_of(prepared).items():
            for name, seen in predictions.items():
                reference = None if name == UNPROTECTED else plain
                compared = subgroups_of_arm(seen, groups, values, two_labels=two_labels, reference=reference)
                fairness = results[name].fairness | {column: compared}
                results[name] = results[name].model_copy(update={"fairness": fairness})

    def _audited(self, prepared: Prepared, faults: list[str]) -> AuditResult | None:
        """Attack training if the scenario has the arm `audit`; an attack on this study that is done is read again."""
        path, study = self._folder.audit, self._scenario.as_study()
        if "audit" not in self._scenario.simulation.arms:
            return None
        if path.exists() and (done := read_audit(path)).study_sha256 == study.sha256:
            return done
        self.progress.phase("audit", attacks())
        with self._folder.timed("audit"), without_stopping("The audit", faults), TemporaryDirectory() as scratch:
            audited = audit_scenario(self._scenario, prepared, Path(scratch), done=self.progress.step)
            write_audit(path, audited)
            return audited
        return None

    def _trouble(self, prepared: Prepared, arms: Sequence[Arm], state: State) -> TroubleResult | None:
        arm = next(arm for arm in arms if arm.name == "federated")
        return trouble_of(
            self._scenario.simulation.trouble,
            state.records,
            {number: site.name for number, site in enumerate(prepared.sites, start=1)},
            crash_of(arm_folder(self._folder.path, arm.name)),
            seed=arm.seed,
            deadline_s=arm.study.federation.deadline_s,
        )

    def _prepare(self) -> tuple[Prepared, list[Arm]]:
        self.progress.phase("prepare")
        folder = self._folder
        if is_saved(folder.prepared):
            prepared = reopen(folder.prepared)
            return prepared, trained_arms(self._scenario, prepared.sites)
        folder.prepared.mkdir(parents=True, exist_ok=True)
        try:
            with folder.timed("prepare"):
                rehearse(build(self._scenario.as_study()))
                prepared = prepare(self._scenario, self._source, folder.prepared)
                arms = trained_arms(self._scenario, prepared.sites)
                _check_arms(arms)
                return prepared, arms
        except FedVaultError:
            folder.release()
            raise

    def _engine(self) -> Engine:
        simulation, performance = self._scenario.simulation, self._scenario.performance
        # sites that share a GPU share one process, and so one copy of the base model for each arm
        shared = not simulation.processes and device_for(performance.device).type == "cuda"
        processes, path = 1 if shared else simulation.processes, self._folder.path.resolve()
        if simulation.engine == "ray":
            from simulations.engines.ray import RayEngine

            return RayEngine(path, processes=processes, threads=performance.threads, address=self._ray_address)
        return LocalEngine(path, processes=processes, threads=performance.threads)

    def _run_arms(
        self, engine: Engine, arms: list[Arm], prepared: Prepared
    ) -> tuple[dict[str, ArmResult], dict[str, list[Seen]], State, dict[str, Any]]:
        study, simulation = self._scenario.as_study(), self._scenario.simulation
        training = ArmTraining(engine, self._scenario, prepared, self._folder.path, self.progress)
        results, predictions, states = dict[str, ArmResult](), dict[str, list[Seen]](), dict[str, State]()
        if self._scenario.performance.activation_cache:
            self._make_cache_folder()
            with self._folder.timed("cache"):
                training.build_caches(arms)
        if "majority" in simulation.arms and (constant := constant_answer(study, prepared)) is not None:
            results["majority"], predictions["majority"] = constant
        if "untrained-head" in simulation.arms:
            results["untrained-head"], predictions["untrained-head"] = untrained_head(
                study, seed=simulation.seed, evaluate=lambda adapter: training.evaluate("federated", adapter)
            )
        for arm in arms:
            with self._folder.timed(arm.name):
                states[arm.name] = training.train(arm)
                predictions[arm.name] = training.predictions(arm, states[arm.name])
            measured = quality(study, predictions[arm.name])
            results[arm.name] = trained(arm, prepared, states[arm.name], measured)
            if arm.name == OURS and "personal" in simulation.arms:
                with self._folder.timed("personal"):
                    adapter = states[arm.name].adapter
                    results["personal"], predictions["personal"] = personal_arm(
                        study, prepared, adapter, training.personalise
                    )
        ours = next(arm for arm in arms if arm.name == OURS)
        evaluated = {"evaluations": [*training.private_evaluations()], "choice": training.choice(ours)}
        return results, predictions, states[OURS], evaluated

    def _make_cache_folder(self) -> None:
        folder = self._folder.cache
        if self._cache is not None:
            self._cache.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not (folder.is_symlink() or folder.exists()):
                folder.symlink_to(self._cache.resolve())
        folder.mkdir(mode=0o700, exist_ok=True)


def _check_arms(arms: Sequence[Arm]) -> None:
    """Find out before any training what would stop a later arm.

    Raises:
        SettingsError: the base model cannot carry an arm out.
    """
    for arm in {arm.study.sha256: arm for arm in arms}.values():
        try:
            layout_of(arm.study)
        except SettingsError as error:
            raise SettingsError(
                f"Expected arms that the base model can carry out, {arm.name!r} is none: {error}",
                hint=error.hint or "Leave it out of simulation.arms.",
            ) from None
