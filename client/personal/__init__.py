"""A node's own adapter, made WITHOUT PRIVACY from a finished one, for that node's eyes alone.

`training` (no noise, no server), `at_node` (where it lies, what is said of it). Nothing that answers a server, no link
and no page may import this room.
"""
