"""An audit: epsilon bounded from below by attacking our own training, beside the epsilon that it claims.

Reading order: `one_run_bound` (pure: guesses about canaries become a bound), `canaries` (directions, and their scores),
`audited_site` (a claim becomes a study, a tiny model and rounds of the node's own trainer), `audit` (bound, power,
verdict), `lone_record` (what canaries cannot see: the divisor), `controls` (faults that the audit has to catch),
`summed_sites` (a sum of shared noise, as a server with colluders sees it), `claims` (what training claims at some
epsilons). For one scenario: `membership` (pure: losses become guesses who took
part), `shadows` (adapters that are trained for it), `scenario_audit` (both attacks), `command` (`fedvault-sim audit`).
"""
