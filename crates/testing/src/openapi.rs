//! Checks of the API descriptions: each is the same as the file in `docs/openapi`, and every reference in it resolves.

use serde_json::Value;

/// Checks that `whole` is the same as `file` in `docs/openapi`. With `BLESS` in the environment, writes the file.
pub fn is_the_one_that_is_kept(file: &str, whole: &Value) {
    let text = serde_json::to_string_pretty(whole).unwrap() + "\n";
    let place = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi").join(file);
    #[expect(clippy::disallowed_methods, reason = "the switch by which a developer asks for a new file")]
    if std::env::var_os("BLESS").is_some() {
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(&place, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&place).unwrap_or_default();
    assert!(kept == text, "write it anew with BLESS=1 cargo test --lib documents, and look at what changed");
}

/// Checks that every reference resolves, and returns the number of references.
pub fn references(whole: &Value) -> usize {
    let text = whole.to_string();
    let mut rest = text.as_str();
    let mut found = 0;
    while let Some(at) = rest.find("#/components/schemas/") {
        rest = &rest[at + "#/components/schemas/".len()..];
        let name = &rest[..rest.find('"').unwrap()];
        assert!(whole["components"]["schemas"][name].is_object(), "{name}");
        found += 1;
    }
    found
}
