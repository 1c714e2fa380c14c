"""The one public port: `proxy`, `client_certificate`, `enrolment`, `metrics`, `process`."""
