"""The commands of `fedvault-server`.

In reading order: `app` (the list of commands), `federation`, `dashboard`, `nodes`, `operators`, `studies`, `reports`,
`explanations`, `tracking` and `backups` (the commands), `options` (what several of them take), `printing` (how rows and
events look).
"""

from server.cli.app import main

__all__ = ["main"]
