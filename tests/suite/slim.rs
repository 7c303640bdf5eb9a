//! The wrapper and the leaf helper link no async runtime, TLS or HTTP library.

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
fn the_crates_of_wrapper_and_leaf_helper_depend_on_no_runtime_tls_or_http_library() {
    // The compiler holds each crate to its manifest; that none of the crates below brings such a library, this does.
    for (package, known) in [("machineid-run", "lexopt"), ("machineid-leaf", "machineid-tree")] {
        let output = Command::new(env!("CARGO"))
            .args(["tree", "--package", package, "-e", "normal", "--prefix", "none", "--offline", "--locked"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let crates: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
        assert!(crates.contains(&"rustix") && crates.contains(&known), "{text}");
        for heavy in HEAVY {
            assert!(!crates.contains(&heavy), "{heavy} is linked into {package}:\n{text}");
        }
    }
}

#[test]
fn the_programs_themselves_have_none_of_their_code() {
    // Built beside the other programs, they share their dependency tree; what counts is what the linker put in.
    for (program, own) in [
        (env!("CARGO_BIN_EXE_machineid-run"), "machineid_run::"),
        (env!("CARGO_BIN_EXE_machineid-leaf"), "machineid_leaf::"),
    ] {
        let Ok(output) = Command::new("nm").arg("-C").arg(program).output() else { return };
        let symbols = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() || !symbols.contains(own) {
            // No nm, or a stripped binary.
            return;
        }
        for heavy in ["tokio::", "hyper::", "rustls::", "reqwest::", "sqlx", "clap_builder::", "sqlite3_"] {
            let found = symbols.lines().find(|line| line.contains(heavy));
            assert_eq!(found, None, "{program} {heavy}");
        }
    }
}
