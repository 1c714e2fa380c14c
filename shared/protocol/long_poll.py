"""Names the request with which a node waits at the gateway for work, and the longest that one lasts."""

WAIT_PATH = "/v1/wait"
LONGEST_WAIT_S = 25.0
"""Proxies on the way cut what is silent for longer."""
