use super::*;

fn around() -> Surroundings {
    Surroundings {
        root: false,
        home: Some("/home/me".into()),
        xdg_runtime_dir: Some("/run/user/1000".into()),
        xdg_state_home: None,
        state_directory: None,
        groups: "machineid:x:900:\nmachineid-admin:x:901:\n".to_owned(),
        users: "machineid-authority:x:903:903::/:/bin/false\n".to_owned(),
        runtime_directories: Vec::new(),
    }
}

fn nothing(_: &str) -> Option<String> {
    None
}

fn read(text: &str) -> Result<Settings, ConfigError> {
    resolve(Some((Path::new("/etc/machineid/machineid-sidecar.toml"), text)), &nothing, &around())
}

fn complaint(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

#[test]
fn the_commented_file_equals_the_built_in_defaults() {
    let text = include_str!("../../machineid-sidecar.toml");
    let from_file = read(text).unwrap();
    let built_in = resolve(None, &nothing, &around()).unwrap();
    let plain = |mut settings: Settings| {
        settings.file = None;
        settings.device.id_origin = Origin::Default;
        settings.local.runtime_dir_origin = Origin::Default;
        format!("{settings:#?}")
    };
    assert_eq!(plain(from_file), plain(built_in));
    for section in ["authority", "device", "enforcement", "local", "log", "audit", "metrics"] {
        assert!(text.contains(&format!("[{section}]")), "{section}");
    }
}

#[test]
fn every_key_the_commented_file_shows_commented_out_exists() {
    let text = include_str!("../../machineid-sidecar.toml");
    let examples: String = text
        .lines()
        .map(|line| line.strip_prefix("#: ").unwrap_or(line))
        .fold(String::new(), |all, line| all + line + "\n");
    let settings = read(&examples).unwrap();
    assert!(settings.enforcement.kill_file.is_some() && settings.authority.org_key_file.is_some());
    assert_eq!(settings.local.admin_group.map(|group| group.gid), Some(901));
    assert!(settings.local.group.is_some() && settings.authority.ca_file.is_some());
    assert!(settings.audit_key_file.is_some());
    assert!(settings.audit_file.is_some() && settings.metrics_listen.is_some());
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_right_ones() {
    let error = complaint("[enforcement]\ninterval = \"5s\"\nleese = \"30s\"\n");
    assert!(error.starts_with("/etc/machineid/machineid-sidecar.toml:3: "), "{error}");
    assert!(error.contains("leese") && error.contains("lease"), "{error}");
}

#[test]
fn a_bad_value_is_named_with_its_line_and_key() {
    for (text, line, needles) in [
        ("[authority]\n\ntimeout = \"3\"\n", 3, vec!["authority.timeout", "unit"]),
        ("[authority]\nurl = \"http://machineid.io\"\n", 2, vec!["authority.url", "https", "allow_http"]),
        ("[enforcement]\nsystem_unavailable = \"maybe\"\n", 2, vec!["enforcement.system_unavailable", "retry"]),
        ("[enforcement]\ncontainment = \"docker\"\n", 2, vec!["enforcement.containment", "docker", "auto, cgroup"]),
        ("[enforcement]\nundecided = \"pause\"\n", 2, vec!["enforcement.undecided", "freeze"]),
        ("[enforcement]\noutside_helpers = \"kill\"\n", 2, vec!["enforcement.outside_helpers", "stop"]),
        ("[enforcement]\nstop_signal = \"NOPE\"\n", 2, vec!["enforcement.stop_signal"]),
        ("[enforcement]\ninterval = \"0s\"\n", 2, vec!["enforcement.interval", "10ms"]),
        ("[local]\nmode = \"0999\"\n", 2, vec!["local.mode", "octal"]),
        ("[local]\nsocket = \"sidecar.sock\"\n", 2, vec!["local.socket", "absolute"]),
        ("[local]\nadmin_group = \"nobodys\"\n", 2, vec!["local.admin_group", "no group \"nobodys\"", "groupadd"]),
        ("[log]\nformat = \"xml\"\n", 2, vec!["log.format", "json"]),
        ("[log]\nlevel = \"loud\"\n", 2, vec!["log.level", "debug"]),
        ("[device\n", 1, vec![]),
        ("[authority]\ntimeout = 3\n", 2, vec!["authority.timeout", "string", "quotes"]),
        ("# a=b\n[device]\nallow = [\"a=b\",\n 3]\n", 4, vec!["string"]),
        ("[log]\n[local] # here\nephemeral = true\n", 3, vec!["local.ephemeral", "socket"]),
        ("device.id = 7\n", 1, vec![":1: device.id: ", "string"]),
    ] {
        let error = complaint(text);
        assert!(error.starts_with(&format!("/etc/machineid/machineid-sidecar.toml:{line}: ")), "{error}");
        for needle in needles {
            assert!(error.contains(needle), "{needle:?} is not in {error:?}");
        }
    }
}

#[test]
fn a_lease_that_cannot_hold_is_refused_with_one_that_can() {
    let error = complaint("[enforcement]\ninterval = \"10s\"\nlease = \"12s\"\n");
    assert!(error.contains(":3: enforcement.lease: ") && error.contains("at least 13s"), "{error}");
    let error = complaint("[enforcement]\ninterval = \"1m\"\n");
    assert!(error.contains(":2: enforcement.interval: "), "{error}");
    assert!(read("[enforcement]\ninterval = \"10s\"\nlease = \"13s\"\n").is_ok());
}

#[test]
fn a_socket_path_that_is_too_long_is_refused() {
    let error = complaint(&format!("[local]\nsocket = \"/{}\"\n", "x".repeat(107)));
    assert!(error.contains("local.socket") && error.contains("108 bytes") && error.contains("107"), "{error}");
}

#[test]
fn the_official_variables_beat_the_file_and_are_named_in_errors() {
    let env = |name: &str| match name {
        "MACHINEID_BASE_URL" => Some("http://127.0.0.1:9/".to_owned()),
        "MACHINEID_DEVICE_ID" => Some("agent-01".to_owned()),
        _ => None,
    };
    let settings = resolve(None, &env, &around()).unwrap();
    assert_eq!(settings.authority.url.to_string(), "http://127.0.0.1:9");
    assert_eq!(settings.device.id_template, "agent-01");
    let env = |name: &str| (name == "MACHINEID_BASE_URL").then(|| "ftp://x".to_owned());
    let error = resolve(None, &env, &around()).unwrap_err().to_string();
    assert!(error.starts_with("MACHINEID_BASE_URL: "), "{error}");
}

#[test]
fn without_a_runtime_directory_the_places_must_be_named() {
    let nowhere = Surroundings::default();
    let error = resolve(None, &nothing, &nowhere).unwrap_err().to_string();
    assert!(error.contains("local.socket") && error.contains("XDG_RUNTIME_DIR"), "{error}");
}

#[test]
fn the_check_timeout_follows_the_timeout() {
    assert_eq!(read("[authority]\ntimeout = \"2s\"\n").unwrap().local.check_timeout, Duration::from_secs(3));
    let explicit = read("[local]\ncheck_timeout = \"1s500ms\"\n").unwrap();
    assert_eq!(explicit.local.check_timeout, Duration::from_millis(1_500));
}
