"""What is agreed on.

`declaration` (the study and its hash), `tasks` (what it says of each kind), `schedule` (its learning rates).
"""
