//! The wrapper links no async runtime, TLS or HTTP library.

use std::process::Command;

const HEAVY: [&str; 14] = [
    "tokio",
    "hyper",
    "reqwest",
    "rustls",
    "ring",
    "axum",
    "sqlx",
    "rusqlite",
    "native-tls",
    "openssl",
    "clap",
    "tracing",
    "http",
    "h2",
];

#[test]
fn the_wrapper_s_crate_depends_on_no_runtime_tls_or_http_library() {
    // The compiler holds each crate to its manifest; that none of the crates below brings such a library, this does.
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--package", "machineid-run", "-e", "normal", "--prefix", "none", "--offline", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let crates: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(crates.contains(&"rustix") && crates.contains(&"lexopt"), "{text}");
    for heavy in HEAVY {
        assert!(!crates.contains(&heavy), "{heavy} is linked into machineid-run:\n{text}");
    }
}

#[test]
fn the_wrapper_itself_has_none_of_their_code() {
    // Built beside the other programs, it shares their dependency tree; what counts is what the linker put in.
    let Ok(output) = Command::new("nm").arg("-C").arg(env!("CARGO_BIN_EXE_machineid-run")).output() else { return };
    let symbols = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || !symbols.contains("machineid_run::") {
        // No nm, or a stripped binary.
        return;
    }
    for heavy in ["tokio::", "hyper::", "rustls::", "reqwest::", "sqlx", "clap_builder::", "sqlite3_"] {
        let found = symbols.lines().find(|line| line.contains(heavy));
        assert_eq!(found, None, "{heavy}");
    }
}
