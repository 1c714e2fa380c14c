"""The node's part of a federation.

`policy` and `settings` (what its operator allows), `deployment`, `vault_api` (all that both halves share), `link` (the
half with the network), `vault` (the half with the records), `answer` (to a message), `app` (Flower's ClientApp, for
simulations), `evidence` (what others are shown), `operator` and `cli` (commands), `personal` (an adapter for this node
alone, without privacy), `dashboard` (the operator's page), `operator_api` (all that it and the vault share) and
`operator_service` (the vault's answers to it).
"""
