"""Environment variables that our processes set before libraries read them: to be quiet, and to download nothing."""

QUIET = {
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Of every process that uses Flower: it installs nothing, reports nothing and looks for no update."""

OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
"""Of a process that downloads nothing. These libraries read it when they are imported, and never again."""
