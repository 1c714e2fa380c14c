"""Answers the operator's page for the vault, over a socket of its own: `service`, `questions`, `jobs`, `studies`,
`trial`.

It does what the commands do, with the same functions. Nothing that it answers holds a record's text.
"""
