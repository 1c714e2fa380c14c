"""Commands and the page read what evaluations came to without what trains."""

import subprocess
import sys


def test_what_evaluations_came_to_is_read_without_flower_and_torch() -> None:
    imports = "import sys, server.private_evaluation.results, server.dashboard.evaluations"
    code = f"{imports}; print({{'torch', 'flwr'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
