"""Where a node waits at the gateway until the server has something for it, and for how long at most."""

WAIT_PATH = "/v1/wait"
LONGEST_WAIT_S = 25.0
"""Proxies on the way cut what is silent for longer."""
