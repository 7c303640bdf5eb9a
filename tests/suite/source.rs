//! Rules about the source that no other tool checks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The Rust files below `folder`, without those of tests.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            if !["tests", "testing", "fuzz"].contains(&name.as_str()) {
                files(&path, found);
            }
        } else if path.extension().is_some_and(|kind| kind == "rs") && !name.ends_with("tests.rs") {
            found.push(path);
        }
    }
}

fn source() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in ["src", "crates"] {
        files(&root.join(folder), &mut found);
    }
    found.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// The type that a line defines at the top of its file, and whether other crates can name it.
fn defined(line: &str) -> Option<(&str, bool)> {
    let public = line.starts_with("pub ");
    let rest =
        if line.starts_with("pub(") { line.split_once(") ")?.1 } else { line.strip_prefix("pub ").unwrap_or(line) };
    let rest = ["struct ", "enum ", "trait ", "type ", "union "].iter().find_map(|kind| rest.strip_prefix(kind))?;
    rest.split(|c: char| !c.is_alphanumeric()).next().map(|name| (name, public))
}

#[test]
fn the_name_of_a_public_type_is_given_once() {
    let mut types: BTreeMap<String, Vec<(PathBuf, bool)>> = BTreeMap::new();
    for (path, text) in source() {
        for (name, public) in text.lines().filter_map(defined) {
            types.entry(name.to_owned()).or_default().push((path.clone(), public));
        }
    }
    assert!(types.len() > 500, "only {} types were found", types.len());
    types.retain(|_, places| places.len() > 1 && places.iter().any(|(_, public)| *public));
    assert!(types.is_empty(), "rename all but one of each: {types:#?}");
}

#[test]
fn the_lock_file_has_the_small_tables_for_international_names() {
    let lock = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock")).unwrap();
    assert!(lock.contains("name = \"idna_mapping\""), "run: cargo update -p idna_adapter --precise 1.1.0");
    assert!(!lock.contains("name = \"icu_properties\""), "run: cargo tree -i icu_properties, and see what brings it");
}

#[test]
fn unsafe_code_stays_in_its_crate_and_small() {
    // The keyword before a block or an implementation; the word in a comment or an attribute has no such brace.
    let blocks = |text: &str| {
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        code.map(|line| line.matches("unsafe {").count() + line.matches("unsafe impl").count()).sum::<usize>()
    };
    let sys = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/sys");
    let (inside, outside): (Vec<_>, Vec<_>) = source().into_iter().partition(|(path, _)| path.starts_with(&sys));
    for (path, text) in outside {
        assert_eq!(blocks(&text), 0, "{}", path.display());
    }
    let count: usize = inside.iter().map(|(_, text)| blocks(text)).sum();
    assert!((1..=31).contains(&count), "{count} unsafe blocks; at most 31 were agreed on");
}
