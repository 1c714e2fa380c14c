"""What the vault process answers.

`process`, `grpc_service`, `node_vault` (every question), `stance` (to an offer), `charged_round`, `local_metrics`.
"""
