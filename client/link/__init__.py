"""The half with the network.

`loop`, `fleet`, `inbox`, `membership`, `vault_client`, `process`. Never imports `client.vault`.
"""
