"""Many sites on one machine: the same server and client code, driven by an engine, with results that may be shown.

Reading order: `experiment` (from a TOML file to sites and arms), `datasets`, `sites` (how they train), `engines` (who
runs them), `arm_training`, `server_crash`, `private_evaluation`, `baselines`, `run_identity` (which
runs are the same, or repeats), `run_folder` and `run` (a scenario becomes a result), `results`, `progress`, `board`
(runs side by side), `forecast` and `step_timing` (before a run), `outlets`, `sweeps` (many runs of one scenario), `api`
(all this from Python), `cli`, `quiet`. `benchmarks`, `audit` and `e2e` stand above all of them.
"""
