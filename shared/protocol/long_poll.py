"""Names the request with which a node waits at the gateway for work, and the longest that one lasts.

A wait also says that the node is there. The gateway's answer says whether the SuperLink has heard of that lately: then
the node need send no heartbeat.
"""

WAIT_PATH = "/v1/wait"
LONGEST_WAIT_S = 25.0
"""Proxies on the way cut what is silent for longer."""
NODE_HEADER = "x-fedvault-node"
"""Flower's number of the node, as it knows it: one that has another by now is not there under the old one."""
PRESENT_HEADER = "x-fedvault-present"
