"""The agreements between nodes and server; nothing here imports either side.

Reading order: `errors`, `checks`, `study` (the declaration that both sides hash), `protocol` (the messages),
`secure_sum` (adding what the server cannot read), `base_models` and `adapted_model` (the model that is trained),
`records` and `tasks` (from an operator's rows to losses and metrics), `privacy` (what it all costs),
`private_evaluation` (noisy counts over held-out records), `pages` and `evidence` (reports that somebody signs),
`explanations` (of predictions), `web` (pages that somebody operates). Below them: `section` (how TOML becomes an
object), `settings_page` (the pages of its keys), `files`, `search`, `spelling`, `printable`, `environment`, `logs`,
`command_line`, `terminal` and `processes` (how processes start, end and write).
"""
