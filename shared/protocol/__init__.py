"""What travels.

`messages`, `versions` (how two ages agree), `update_encoding` (bytes of an update), `invite`.
"""
