//! Files, variables and flags in, one configuration out; what is wrong is named with its place.

use super::*;

fn user() -> Environment {
    Environment::of(false, &[("HOME", "/home/ada"), ("XDG_RUNTIME_DIR", "/run/user/7")])
}

fn load(file: &str, variables: &[(&str, &str)], args: ServeArgs) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gpulease.toml");
    std::fs::write(&path, file).unwrap();
    Config::load(&ServeArgs { config: Some(path), ..args }, &Environment::of(false, variables))
}

/// What a file leads to: the errors' text, with the file's directory cut off, or a good configuration.
fn check(file: &str, expected: Result<(), &str>) {
    let found = load(file, &[], ServeArgs::default()).map(drop).map_err(|error| {
        let text = error.to_string();
        text.split_once("/gpulease.toml").map_or(text.clone(), |(_, rest)| rest.to_owned())
    });
    let wanted = expected.map_err(str::to_owned);
    match (&found, &wanted) {
        (Err(found), Err(wanted)) => assert!(found.starts_with(wanted.as_str()), "{found}"),
        _ => assert_eq!(found, wanted, "{file}"),
    }
}

#[test]
fn a_file_is_read_or_refused_with_line_column_key_value_and_bound() {
    check("", Ok(()));
    check("listen = 'none'\n[leases]\nlock_delay = '1m 30s'\nlive_max = 7\n", Ok(()));
    check("leases.lock_delay = '0s'", Ok(()));
    check("devices = { slots = 4, memory_limit = '8GiB' }", Ok(()));
    check("devices.slots = 'auto'", Ok(()));
    check("devices.memory_reserve = 1048576", Ok(()));
    check("[log]\nlevel = 'info,gpulease_server::actor=debug'", Ok(()));
    check(
        "\n[leases]\nlock_dely = '1s'",
        Err(
            ":3:1: unknown key `leases.lock_dely`; did you mean `leases.lock_delay`? `gpulease serve",
        ),
    );
    check(
        "lock_delay = '1s'",
        Err(":1:1: unknown key `lock_delay`; did you mean `leases.lock_delay`?"),
    );
    check(
        "zzz = 1",
        Err(":1:1: unknown key `zzz`; `gpulease serve --print-config` shows all keys"),
    );
    check("[[leases]]", Err(":1:3: unknown key `leases`"));
    check(
        "data = '/d'\nlisten = 'here'",
        Err(":2:10: listen is \"here\"; it must be an address and port such as 127.0.0.1:7475"),
    );
    check(
        "[leases]\nlock_delay = '2h'",
        Err(":2:14: leases.lock_delay is \"2h\"; it must be a duration such as 30s, from 0s to 1h"),
    );
    check("leases.lock_delay = 15", Err(":1:21: leases.lock_delay is 15; it must be a duration"));
    check(
        "leases.queued_max = -1",
        Err(":1:21: leases.queued_max is -1; it must be a number from 1"),
    );
    check("leases.queued_max = 1.5", Err(":1:21: leases.queued_max is a number with a fraction"));
    check(
        "devices.memory_reserve = '2EiB'",
        Err(":1:26: devices.memory_reserve is \"2EiB\"; it must"),
    );
    check("devices.grant_unmeasured = 'perhaps'", Err(":1:28: devices.grant_unmeasured is"));
    check("log.level = 'loud'", Err(":1:13: log.level is \"loud\"; it must be error, warn, info"));
    check("data = ''", Err(":1:8: data is \"\"; it must be a path"));
    check("a = ", Err(":1:5: this is no TOML: "));
    check("data = '/a'\ndata = '/b'", Err(":2:1: this is no TOML: duplicate key"));
}

#[test]
fn services_have_tables_of_their_own_names() {
    check(
        "[services.\"llm / prod\"]\nweight = 3\nmemory_max = '64GiB'\nleases_max = 'none'\n",
        Ok(()),
    );
    check("services.batch = { devices_max = 4, preferred_device = 'GPU-7' }", Ok(()));
    check(
        "[services.llm]\nwieght = 3",
        Err(":2:1: unknown key `services.llm.wieght`; did you mean `services.NAME.weight`?"),
    );
    check("[services.llm]\nzzz = 3", Err(":2:1: unknown key `services.llm.zzz`; `gpulease serve"));
    check(
        "[services.llm]\nweight = 0",
        Err(":2:10: services.llm.weight is 0; it must be a number from 1 to 1000"),
    );
    check(
        "[services.llm]\nlease_memory_min = '8GiB'\nlease_memory_max = '4GiB'",
        Err(
            ":3:20: services.llm.lease_memory_max is \"4GiB\"; it must be such that lease_memory_min (8GiB)",
        ),
    );
    check(
        "services.llm = 3",
        Err(":1:10: services is \"llm\"; it must be a table named by a service"),
    );
    check("services = 3", Err(":1:1: unknown key `services`"));
    check("fairness.half_life = '30s'", Err(":1:22: fairness.half_life is \"30s\"; it must be"));
}

#[test]
fn a_service_with_a_table_has_nothing_of_the_others() {
    let file = "[services.\"*\"]\nleases_max = 2\nweight = 5\n[services.llm]\nweight = 7\n";
    let policy = load(file, &[], ServeArgs::default()).unwrap().policy;
    let settings = |service: &str| {
        let settings = policy.service(&service.into());
        (settings.weight, settings.leases_max)
    };
    assert_eq!((settings("llm"), settings("any")), ((7, None), (5, Some(2))));
}

#[test]
fn a_long_value_is_cut_in_the_error() {
    let file = format!("listen = '{}'", "x".repeat(1 << 20));
    let error = load(&file, &[], ServeArgs::default()).unwrap_err().to_string();
    assert!(error.len() < 500, "{}", error.len());
}

#[test]
fn a_flag_goes_before_the_environment_before_the_file_before_the_default() {
    let file = "listen = '127.0.0.1:1'\nhttp = '127.0.0.1:1'\ndata = '/file'\n";
    let variables = [("GPULEASE_LISTEN", "127.0.0.1:2"), ("GPULEASE_HTTP", "127.0.0.1:2")];
    let args = ServeArgs { listen: Some("127.0.0.1:3".into()), ..ServeArgs::default() };
    let config = load(file, &variables, args).unwrap();
    let port = |address: Option<SocketAddr>| address.map(|address| address.port());
    assert_eq!((port(config.listen), port(config.http)), (Some(3), Some(2)));
    assert_eq!(config.data, PathBuf::from("/file"));
    assert_eq!(config.log_level, "info");
}

#[test]
fn a_bad_flag_or_variable_is_named() {
    let args = ServeArgs { http: Some("7476".into()), ..ServeArgs::default() };
    let error = load("", &[], args).unwrap_err().to_string();
    assert!(error.starts_with("the flag --http: http is \"7476\"; it must be"), "{error}");
    let variables = [("GPULEASE_LEASES_LOCK_DELAY", "soon")];
    let error = load("", &variables, ServeArgs::default()).unwrap_err().to_string();
    assert!(error.starts_with("the variable GPULEASE_LEASES_LOCK_DELAY: leases.lock"), "{error}");
}

#[test]
fn a_named_file_that_is_not_there_is_an_error_and_a_usual_one_is_not() {
    let args = ServeArgs { config: Some("/nowhere/g.toml".into()), ..ServeArgs::default() };
    let error = Config::load(&args, &user()).unwrap_err().to_string();
    assert_eq!(error, "cannot read the configuration file /nowhere/g.toml");
    assert!(Config::load(&ServeArgs::default(), &user()).is_ok());
}

#[test]
fn defaults_depend_on_who_runs_the_coordinator() {
    let config = Config::load(&ServeArgs::default(), &user()).unwrap();
    assert_eq!(config.data, PathBuf::from("/home/ada/.local/state/gpulease"));
    assert_eq!(config.socket, Some("/run/user/7/gpulease.sock".into()));
    let root = defaults::config(&Environment::of(true, &[]));
    assert_eq!(root.data, PathBuf::from("/var/lib/gpulease"));
    assert_eq!(root.socket, Some("/run/gpulease/gpulease.sock".into()));
}

#[test]
fn what_is_printed_reads_back_as_the_same_and_has_every_key() {
    let file = "simulate = '2x24GiB'\nleases.lock_delay = '1500ms'\ndevices.slots = 3\nsocket = 'none'\n\
        devices.memory_limit = 12345\nlog.format = 'json'\ndata = '/a \"b\"'\nfairness.enabled = false\nservices.'*'.waiting_max = 9\n\
        services.'a.b'.memory_max = '24GiB'\n";
    let config = load(file, &[], ServeArgs::default()).unwrap();
    let printed = config.to_toml(&user());
    let again = load(&printed, &[], ServeArgs::default()).unwrap();
    assert_eq!(format!("{config:?}"), format!("{again:?}"));
    for key in keys::ALL {
        assert!(printed.contains(key.meaning.split(' ').next().unwrap()), "{}", key.name);
        assert!(printed.contains(&key.variable()), "{}", key.name);
    }
}

#[test]
fn every_flag_names_a_key() {
    let text = || Some("x".to_owned());
    let args = ServeArgs {
        simulate: text(),
        listen: text(),
        http: text(),
        socket: text(),
        data: text(),
        log: text(),
        log_format: text(),
        config: None,
        print_config: false,
    };
    assert_eq!(args.values().count(), 7);
    assert!(args.values().all(|(_, key, _)| keys::find(key).is_some()));
}
