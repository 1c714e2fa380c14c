"""All that the operator's page and the vault share: the names of a few questions, and JSON.

`messages`, `asking`. The link imports none of it.
"""
