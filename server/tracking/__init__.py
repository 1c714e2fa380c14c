"""Curves of runs where people keep them: `curves` (what is sent), `mlflow_server` (sends it), `background` (beside a
run, which never waits for it), `from_store` (what the run store knows)."""
