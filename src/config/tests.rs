//! Tests of whole environments: the configuration or the faults of each.

use super::{variables::known, *};

fn config(pairs: &[(&str, &str)]) -> Result<Config, Error> {
    Config::new(&pairs.iter().copied().collect())
}

#[test]
fn the_endpoint_is_the_only_required_variable() {
    let config = config(&[("REDIS_ENDPOINT", "c.r.redis.azure.net")]).expect("it is complete");
    assert_eq!(config.http.public.to_string(), "0.0.0.0:8080");
    assert_eq!(config.http.admin, None);
    assert_eq!(config.redis.auth, Auth::Entra);
    assert_eq!(
        config.redis.endpoint.to_string(),
        "c.r.redis.azure.net:10000"
    );
    assert_eq!(config.sample.key, "PreviousVisitTime");
    assert_eq!(config.drain.timeout, Duration::from_secs(20));
    assert_eq!(config.warnings, []);
}

#[test]
fn every_fault_is_listed_at_once_in_the_tables_order() {
    let error = config(&[
        ("DRAIN_TIMEOUT", "0s"),
        ("PORT", "eighty"),
        ("REDIS_AUTH", "password"),
        ("REDIS_POOL_SIZE", "0"),
        ("AZURE_AUTHORITY_HOST", "http://localhost"),
    ])
    .expect_err("six faults");
    let variables: Vec<_> = error.faults().iter().map(|f| f.variable).collect();
    assert_eq!(
        variables,
        [
            "PORT",
            "REDIS_ENDPOINT",
            "REDIS_AUTH",
            "REDIS_POOL_SIZE",
            "AZURE_AUTHORITY_HOST",
            "DRAIN_TIMEOUT"
        ]
    );
    assert!(
        error
            .to_string()
            .contains("PORT: invalid value `eighty`, expected a port")
    );
}

#[test]
fn a_token_never_travels_in_the_clear() {
    let pairs = [("REDIS_ENDPOINT", "localhost:6379"), ("REDIS_TLS", "false")];
    let error = config(&pairs).expect_err("refused with entra");
    assert_eq!(error.faults()[0].variable, "REDIS_TLS");
    let without = [pairs[0], pairs[1], ("REDIS_AUTH", "none")];
    assert!(!config(&without).expect("fine without a token").redis.tls);
}

#[test]
fn empty_means_unset() {
    let config = config(&[
        ("REDIS_ENDPOINT", "localhost:6379"),
        ("AZURE_CLIENT_ID", ""),
        ("PORT", ""),
    ])
    .expect("a valid configuration");
    assert_eq!(config.identity.client_id, None);
    assert_eq!(config.http.public.port(), 8080);
}

#[test]
fn a_key_is_required_with_auth_key_and_warned_about_without() {
    let endpoint = ("REDIS_ENDPOINT", "localhost:6379");
    let error = config(&[endpoint, ("REDIS_AUTH", "key")]).expect_err("no key");
    assert_eq!(error.faults()[0].variable, "REDIS_KEY");
    let config = config(&[endpoint, ("REDIS_KEY", "k"), ("REDIS_TSL", "true")])
        .expect("a valid configuration");
    assert_eq!(
        config.warnings,
        [
            Warning::Library(env::Warning::UnknownVariable("REDIS_TSL".to_owned())),
            Warning::Library(env::Warning::UnusedKey)
        ]
    );
}

#[test]
fn a_command_timeout_above_the_requests_is_warned_about() {
    let endpoint = ("REDIS_ENDPOINT", "localhost:6379");
    let limits = |request, command| {
        let limits = [
            endpoint,
            ("REQUEST_TIMEOUT", request),
            ("REDIS_COMMAND_TIMEOUT", command),
        ];
        config(&limits).expect("a valid configuration").warnings
    };
    assert_eq!(limits("2s", "1999ms"), []);
    assert_eq!(limits("2s", "2s"), [Warning::CommandOutlastsRequest]);
}

#[test]
fn a_named_credential_must_be_complete() {
    let error = config(&[
        ("REDIS_ENDPOINT", "localhost:6379"),
        ("AZURE_TOKEN_CREDENTIALS", "workloadidentitycredential"),
        ("AZURE_CLIENT_ID", "00000000-0000-0000-0000-000000000001"),
    ])
    .expect_err("two are missing");
    let variables: Vec<_> = error.faults().iter().map(|f| f.variable).collect();
    assert_eq!(variables, ["AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE"]);
}

#[test]
fn kubernetes_own_variables_cause_no_warning() {
    let config = config(&[
        ("REDIS_ENDPOINT", "localhost:6379"),
        ("REDIS_SERVICE_HOST", "10.0.0.1"),
        ("REDIS_PORT_6379_TCP", "tcp://10.0.0.1:6379"),
    ])
    .expect("a valid configuration");
    assert_eq!(config.warnings, []);
}

#[test]
fn secrets_are_hidden_where_values_are_shown() {
    let environment: Environment = [("REDIS_KEY", "k3y"), ("PORT", "1")].into_iter().collect();
    let shown = |name| environment.shown(known(name).expect("it is known"));
    assert_eq!(shown("REDIS_KEY"), Some("(hidden)"));
    assert_eq!(shown("PORT"), Some("1"));
    assert_eq!(shown("HOST"), Some("0.0.0.0"));
    assert_eq!(shown("REDIS_ENDPOINT"), None);
}

#[test]
fn a_secret_in_the_wrong_variable_is_not_quoted() {
    let noise = "aB3".repeat(12); // generated, so that no secret scanner reports it
    let secrets = [
        format!("{noise}="),                      // the shape of an access key
        format!("abc8Q~{noise}"),                 // of a client secret
        format!("eyJ{noise}.eyJ{noise}.{noise}"), // of a token
    ];
    for secret in &secrets {
        for variable in VARIABLES.iter() {
            let mut environment = Environment::from_iter([(variable.name, secret.as_str())]);
            environment.set_default("REDIS_ENDPOINT", "localhost:1");
            let shown = environment.shown(variable).unwrap_or_default();
            assert!(!shown.contains(&secret[..8]), "{}", variable.name);
            if let Err(error) = Config::new(&environment) {
                let text = error.to_string();
                assert!(!text.contains(&secret[..8]), "{text}");
            }
        }
    }
    let long = "x".repeat(10_000);
    let error = config(&[("PORT", &long)]).expect_err("it is not a port");
    assert!(error.to_string().len() < 500, "{error}");
}

#[test]
fn a_log_filter_that_would_silence_everything_is_a_fault() {
    for wrong in ["verbose", "infoo", "x y", "info;debug", "info,verbose"] {
        let error = config(&[("REDIS_ENDPOINT", "localhost:1"), ("RUST_LOG", wrong)]);
        assert_eq!(error.expect_err(wrong).faults()[0].variable, "RUST_LOG");
    }
    for right in ["INFO", "entra_redis=debug,info", "info,h2=off"] {
        assert!(config(&[("REDIS_ENDPOINT", "localhost:1"), ("RUST_LOG", right)]).is_ok());
    }
}

#[test]
fn nothing_is_exported_unless_an_endpoint_is_set() {
    let endpoint = ("REDIS_ENDPOINT", "localhost:1");
    let plain = config(&[endpoint])
        .expect("a valid configuration")
        .telemetry;
    assert_eq!(
        (plain.traces, plain.logs, plain.metrics),
        (None, None, None)
    );
    let asked =
        config(&[endpoint, ("OTEL_METRICS_EXPORTER", "otlp")]).expect("a valid configuration");
    assert_eq!(asked.telemetry.metrics, None);
    let warning = Warning::NoOtlpEndpoint("OTEL_METRICS_EXPORTER");
    assert_eq!(asked.warnings, [warning]);
}

#[test]
fn a_signals_own_variables_take_precedence_and_http_adds_its_path() {
    let telemetry = config(&[
        ("REDIS_ENDPOINT", "localhost:1"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://agent:4318/base/"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
        ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "grpc"),
        (
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
            "https://other:4318/own",
        ),
        ("OTEL_LOGS_EXPORTER", "otlp"),
        ("OTEL_METRICS_EXPORTER", "otlp"),
    ]);
    let telemetry = telemetry.expect("a valid configuration").telemetry;
    let otlp = |endpoint: &str, protocol| {
        Some(Otlp {
            endpoint: endpoint.to_owned(),
            protocol,
            timeout: Duration::from_millis(2500),
        })
    };
    let http = OtlpProtocol::HttpProtobuf;
    assert_eq!(
        telemetry.traces,
        otlp("http://agent:4318/base/v1/traces", http)
    );
    assert_eq!(
        telemetry.logs,
        otlp("http://agent:4318/base/", OtlpProtocol::Grpc)
    );
    assert_eq!(telemetry.metrics, otlp("https://other:4318/own", http));
}

#[test]
fn a_disabled_sdk_exports_nothing() {
    let telemetry = config(&[
        ("REDIS_ENDPOINT", "localhost:1"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://agent:4318"),
        ("OTEL_LOGS_EXPORTER", "otlp"),
        ("OTEL_SDK_DISABLED", "TRUE"),
    ]);
    let telemetry = telemetry.expect("a valid configuration").telemetry;
    assert_eq!((telemetry.traces, telemetry.logs), (None, None));
}

#[test]
fn values_that_the_sdk_would_ignore_are_faults() {
    for (variable, wrong) in [
        ("OTEL_SDK_DISABLED", "yes"),
        ("OTEL_TRACES_EXPORTER", "jaeger"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http:collector:4317"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317?a=b"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:99999"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://two words:4317"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector/{id}"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", " http://collector"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://xn--a"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "ftp://collector"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://a:b@collector"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://collector/#a"),
        ("AZURE_AUTHORITY_HOST", "https://a:b@login.example"),
        ("AZURE_AUTHORITY_HOST", "https://login.example?a=b"),
        ("REDIS_CA_FILE", "/dev/zero"),
        ("SSL_CERT_FILE", "/dev/zero"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "udp"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key"),
        ("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "a b=c"),
        ("OTEL_RESOURCE_ATTRIBUTES", "team"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
        ("OTEL_TRACES_SAMPLER_ARG", "NaN"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1m"),
    ] {
        let error = config(&[("REDIS_ENDPOINT", "localhost:1"), (variable, wrong)]);
        let error = error.expect_err(variable);
        assert_eq!(error.faults()[0].variable, variable);
    }
}

#[test]
fn certificate_authorities_are_parsed_once_and_a_bad_file_is_a_fault() {
    let directory = tempfile::tempdir().expect("there is room");
    let path = directory.path().join("ca.pem");
    let text = path.to_str().expect("it is ASCII");
    let endpoint = ("REDIS_ENDPOINT", "localhost:1");
    let expected = |variable, value| {
        let error = config(&[endpoint, (variable, value)]).expect_err(variable);
        let [fault] = error.faults() else {
            panic!("one fault: {error}");
        };
        assert_eq!(fault.variable, variable);
        fault.expected
    };
    std::fs::write(&path, "nothing").expect("there is room");
    let folder = directory.path().to_str().expect("it is ASCII");
    for variable in ["REDIS_CA_FILE", "SSL_CERT_FILE"] {
        let empty = expected(variable, text);
        assert_eq!(empty, "a PEM file with at least one certificate");
        assert!(expected(variable, folder).contains("that can be read"));
    }
    let empty = expected("SSL_CERT_DIR", folder);
    assert_eq!(empty, "a directory with at least one PEM certificate");
    assert!(expected("SSL_CERT_DIR", text).contains("that can be read"));

    let made = rcgen::generate_simple_self_signed(["ca".to_owned()]);
    let pem = made.expect("ring makes keys").cert.pem();
    std::fs::write(&path, &pem).expect("there is room");
    let pairs = [endpoint, ("REDIS_CA_FILE", text), ("SSL_CERT_DIR", folder)];
    let config = config(&pairs).expect("both are valid");
    std::fs::remove_dir_all(folder).expect("it is ours");
    let redis = config.redis;
    let additional = redis.ca_file.as_ref();
    assert!(entra_redis::tls::client_config(&redis.roots, additional).is_ok());
    let cut_off = pem.replace("-----END", "-----EN");
    let malformed = tempfile::NamedTempFile::new().expect("there is room");
    std::fs::write(malformed.path(), cut_off).expect("there is room");
    let malformed = malformed.path().to_str().expect("it is ASCII");
    assert!(expected("REDIS_CA_FILE", malformed).contains("every certificate"));
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    /// A value: plausible, in the wrong variable, or noise.
    fn value() -> impl Strategy<Value = String> {
        prop_oneof![
            "[ -~]{0,40}",
            "\\PC{0,20}",
            Just("true".to_owned()),
            Just("5s".to_owned()),
            Just("localhost:6379".to_owned()),
            Just("https://login.microsoftonline.com/".to_owned()),
            Just("WorkloadIdentityCredential".to_owned()),
            "[0-9]{1,30}(ms|s|m|)",
            url(),
            "/dev/(null|zero|urandom)",
        ]
    }

    fn url() -> impl Strategy<Value = String> {
        prop_oneof![
            "(https?|HTTPS|grpc|)(://|:/|:|//)[a-z.-]{0,9}(\\[::1\\])?(:[0-9]{0,6})?[ -~]{0,12}",
            "https?://([a-z]{1,9}|\\[::1\\]|127.0.0.1)(:[1-9][0-9]{0,4})?/[ -~]{0,12}",
        ]
    }

    /// A password in a URL, or in a connection string as the portal shows it.
    fn with_password(marker: &str) -> impl Strategy<Value = String> + use<> {
        let in_url =
            format!("(https?|rediss?|grpc)://[a-z]{{0,5}}:{marker}@[a-z]{{1,9}}(:[0-9]{{1,5}})?/?");
        let in_string = format!(
            "[a-z]{{1,9}}\\.redis\\.azure\\.net:10000,(password|Password)={marker},ssl=True"
        );
        let like = |form: &str| prop::string::string_regex(form).expect("it is a valid expression");
        prop_oneof![like(&in_url), like(&in_string)]
    }

    /// Everything that the program can show of this environment.
    fn all_that_is_shown(environment: &Environment) -> String {
        let shown = Config::variables()
            .iter()
            .map(|variable| environment.shown(variable));
        let table: Vec<_> = shown.map(Option::unwrap_or_default).collect();
        let result = match Config::new(environment) {
            Ok(config) => format!("{config:?} {:?}", config.warnings),
            Err(error) => format!("{error} {error:?}"),
        };
        format!("{} {result}", table.join(" "))
    }

    proptest! {
        /// No environment causes a panic, each fault names its variable, and the value of a secret's variable is never
        /// shown.
        #[test]
        fn any_environment_is_parsed_without_showing_its_secrets(
            values in prop::collection::vec((0..VARIABLES.len(), value()), 0..12),
            marker in "[a-z]{12}",
        ) {
            let mut environment = Environment::default();
            for (place, value) in values {
                let variable = &VARIABLES[place];
                let value = if variable.secret { format!("{marker}{value}") } else { value };
                environment.set(variable.name, value);
            }
            if let Err(error) = Config::new(&environment) {
                prop_assert!(!error.faults().is_empty());
                for (fault, line) in error.faults().iter().zip(error.to_string().lines()) {
                    prop_assert!(known(fault.variable).is_some() && !fault.expected.is_empty());
                    prop_assert!(line.starts_with(&format!("{}: ", fault.variable)), "{}", line);
                }
                prop_assert_eq!(error.to_string().lines().count(), error.faults().len());
            }
            let shown = all_that_is_shown(&environment);
            prop_assert!(!shown.contains(&marker), "{}", shown);
        }

        #[test]
        fn a_password_in_an_address_is_a_fault_and_not_quoted(
            (marker, value) in "[a-z]{12}".prop_flat_map(|marker| (Just(marker.clone()), with_password(&marker))),
        ) {
            let addresses = VARIABLES.iter().map(|variable| variable.name).filter(|name| {
                name.ends_with("_ENDPOINT") || *name == "AZURE_AUTHORITY_HOST"
            });
            for name in addresses {
                let mut environment = Environment::from_iter([(name, value.as_str())]);
                environment.set_default("REDIS_ENDPOINT", "localhost:1");
                let shown = all_that_is_shown(&environment);
                prop_assert!(!shown.contains(&marker), "{}: {}", name, shown);
                // azure_identity reads that one itself.
                if name != "IDENTITY_ENDPOINT" {
                    let error = Config::new(&environment).expect_err(name);
                    prop_assert_eq!(error.faults()[0].variable, name);
                }
            }
        }

        /// An invalid one would fail later, in the exporter or credential that gets it.
        #[test]
        fn an_accepted_url_is_valid_for_every_library(text in url()) {
            for accepted in [parse::collector(&text), parse::collector_of_all(&text), parse::authority(&text)] {
                let Ok(accepted) = accepted else { continue };
                let url = reqwest::Url::parse(&accepted).expect("reqwest accepts it");
                let uri: axum::http::Uri = accepted.parse().expect("tonic accepts it");
                prop_assert_eq!(uri.scheme_str(), Some(url.scheme()));
                prop_assert!(uri.host().is_some_and(|host| !host.is_empty()));
                prop_assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none());
            }
        }

        #[test]
        fn an_accepted_endpoint_is_parsed_back_as_itself(text in "\\PC{0,40}") {
            if let Ok(endpoint) = text.parse::<Endpoint>() {
                prop_assert_eq!(endpoint.to_string().parse::<Endpoint>().ok(), Some(endpoint));
            }
        }
    }
}
