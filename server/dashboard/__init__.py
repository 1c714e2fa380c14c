"""The server's page in a browser, for its operator: `fedvault-server dashboard`.

In reading order: `under_way` (the round that is being asked), `nodes` (who is there), `history` (a run's rounds, cost
and quality), `evaluations` (those on nodes' held-out records), `watch` (gathers all of it), `confirmed` (what is done
after a question), `downloads`, `site` (addresses and templates). For operators at other machines: `operator_sessions`,
`remote_page` (the page behind the gateway).
"""
