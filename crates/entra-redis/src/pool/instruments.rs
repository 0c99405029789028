//! The metrics of the pool. Their names, labels and help texts are an interface.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Duration of commands.
pub const OPERATION_DURATION: &str = "db_client_operation_duration_seconds";
/// Open connections.
pub const CONNECTION_COUNT: &str = "db_client_connection_count";
/// Commands sent again.
pub const RETRIES: &str = "redis_operation_retries_total";
/// Connections opened.
pub const OPENED: &str = "redis_connections_opened_total";
/// Connections closed.
pub const CLOSED: &str = "redis_connections_closed_total";
/// Authentications.
pub const AUTH: &str = "redis_auth_total";
/// Earliest expiry of the tokens in use.
pub const EXPIRY: &str = "redis_connection_token_expiry_timestamp_seconds";

/// Bounds of the histogram's buckets. A nearby Redis replies within a fraction of a millisecond; the last two bounds are the
/// default timeouts of a command and of a request.
pub const BUCKETS: &[(&str, &[f64])] = &[(
    OPERATION_DURATION,
    &[
        0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0,
    ],
)];

/// Names of metrics and labels, each with its name in OpenTelemetry's semantic conventions.
pub const CONVENTIONS: &[(&str, &str)] = &[
    (OPERATION_DURATION, "db.client.operation.duration"),
    (CONNECTION_COUNT, "db.client.connection.count"),
    ("db_operation_name", "db.operation.name"),
    ("db_client_connection_state", "db.client.connection.state"),
    ("error_type", "error.type"),
];

/// Registers the help texts. Call it once, after a recorder is installed.
pub fn describe() {
    describe_histogram!(
        OPERATION_DURATION,
        Unit::Seconds,
        "Duration of Redis commands, including time spent waiting for a connection and retrying, by command and error"
    );
    describe_gauge!(
        CONNECTION_COUNT,
        "Open, authenticated Redis connections by state; always `used`, because callers share connections"
    );
    describe_counter!(
        RETRIES,
        "Times a Redis command was sent again, because the connection was lost, Redis did not run it, or the cluster redirected it"
    );
    describe_counter!(OPENED, "Redis connections opened and authenticated");
    describe_counter!(
        CLOSED,
        "Redis connections closed, by reason: lost, silent (no reply), refused (NOAUTH), expired (token) or shutdown"
    );
    describe_counter!(
        AUTH,
        "AUTH commands sent to Redis, by kind (connect or reauth) and outcome (success or failure)"
    );
    describe_gauge!(
        EXPIRY,
        Unit::Seconds,
        "Earliest expiry time of the tokens that open Redis connections use, in seconds since the Unix epoch"
    );
}
