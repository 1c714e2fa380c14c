"""`fedvault-node`: the commands of a node's operator.

`app` (every command, in the order of `--help`), `membership`, `checks`, `processes`, `pages`, `studies`, `peers`,
`receipts`, `reports`, `explanations`, `personal`, `ledger`, `options` (what they share). Every command imports what it
needs when it runs: `--help` loads no model.
"""

from client.cli.app import cli, main

__all__ = ["cli", "main"]
