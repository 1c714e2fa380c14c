"""What the vault process answers: `process`, `grpc_service`, `node_vault`, `charged_round`."""
