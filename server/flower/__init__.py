"""The part of Flower that runs on this server.

In reading order: `superlink` (serves Flower's SuperLink behind a secret), `control` (registers nodes, starts runs),
`reply_size` (how large a reply may be), `patience` (what happens while Flower is away), `grid` (sends tasks and
receives replies for a run that this process drives).
"""
