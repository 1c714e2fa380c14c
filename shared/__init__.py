"""What nodes and server must agree on.

Reading order: `errors`, `checks`, `study` (the declaration both sides hash), `privacy` (what it costs), `foundation`
and `adapters` (what is trained), `tasks` (from records to losses and metrics), `protocol` (what travels).
"""
