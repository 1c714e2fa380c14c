"""The half with the network.

`loop`, `fleet`, `long_poll`, `inbox`, `membership`, `vault_client`, `process`. Never imports `client.vault`.
"""
