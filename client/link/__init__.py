"""The half with the network.

`loop`, `fleet`, `long_poll`, `inbox`, `membership`, `roster_signer`, `reply_shapes`, `vault_client`, `process`. Never
imports `client.vault`.
"""
