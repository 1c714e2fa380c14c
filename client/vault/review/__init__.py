"""What an operator decides, and what the policy decides alone.

`node_files` (opened once for each question), `offers`, `registering`, `summary`, `review`.
"""
