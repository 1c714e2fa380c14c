"""The one public port of the server.

In reading order: `door` (how many connect), `connections` (and for how long), `client_certificate` (who connects),
`bodies` (what is read, and how fast), `turns` (who is served next), `fleet_calls` (what a node may say), `handed_out`
(what it was asked), `proxy` (what is forwarded), `registration` (Flower's nodes follow ours), `enrolment` (how nodes
come in), `long_poll` (how they wait), `operators` (how
operators reach the page), `refusals` (what is logged of the rest), `metrics` (what Prometheus sees),
`process` (serves them).
"""
