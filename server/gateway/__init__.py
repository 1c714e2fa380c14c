"""The one public port of the server.

In reading order: `client_certificate` (who connects), `bodies` (what is read, and how fast), `turns` (who is served
next), `proxy` (what is forwarded), `registration` (Flower's nodes follow ours), `enrolment` (how nodes come in),
`long_poll` (how they wait), `metrics` (what Prometheus sees), `process` (serves them).
"""
