"""The vault process, and the questions that it answers.

`process`, `grpc_service`, `node_vault` (every question), `stance` (to an offer), `charged_round`, `charged_evaluation`,
`secure_sums` (what the settings say of them), `local_metrics`.
"""
