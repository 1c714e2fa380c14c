"""A study: what server and nodes agree on before anything is trained.

`declaration` (the study and its hash), `sections` and `tasks` (its parts), `parsing` (from TOML), `model_folder`
(beside the file), `secure_sum` and `evaluation` (what goes with them), `schedule` (learning rates).
"""
