//! Service shell: configuration, telemetry, readiness, tasks, shutdown, TLS, admin port.
