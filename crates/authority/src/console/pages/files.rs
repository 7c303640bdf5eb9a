//! The style sheet, the script and the icon. Their names change with their content, so browsers may cache them for any
//! time.

use std::sync::OnceLock;

use axum::extract::Path;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::refused::Refused;
use crate::routes::answer::Answer;

/// A file that is part of this program.
#[derive(Debug)]
pub(super) struct File {
    pub(super) name: String,
    kind: &'static str,
    content: &'static str,
}

impl File {
    fn new(stem: &str, extension: &str, kind: &'static str, content: &'static str) -> Self {
        let hash = hex::encode(&Sha256::digest(content)[..8]);
        Self { name: format!("{stem}.{hash}.{extension}"), kind, content }
    }
}

pub(super) fn style() -> &'static File {
    static STYLE: OnceLock<File> = OnceLock::new();
    let content = include_str!("assets/console.css");
    STYLE.get_or_init(|| File::new("console", "css", "text/css; charset=utf-8", content))
}

pub(super) fn script() -> &'static File {
    static SCRIPT: OnceLock<File> = OnceLock::new();
    let content = include_str!("assets/console.js");
    SCRIPT.get_or_init(|| File::new("console", "js", "text/javascript; charset=utf-8", content))
}

/// The icon. It is a separate file, since the content policy forbids it inside the pages.
pub(super) fn icon() -> &'static File {
    static ICON: OnceLock<File> = OnceLock::new();
    ICON.get_or_init(|| File::new("icon", "svg", "image/svg+xml", include_str!("assets/icon.svg")))
}

pub(super) async fn file(Path(name): Path<String>) -> Result<Response, Refused> {
    let file = [style(), script(), icon()].into_iter().find(|file| file.name == name).ok_or(Refused::NotFound)?;
    let mut response = Answer::file(file.kind, file.content.to_owned()).into_response();
    let kept = HeaderValue::from_static("public, max-age=31536000, immutable");
    response.headers_mut().insert(header::CACHE_CONTROL, kept);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The maximum size of all files that a browser fetches for a page, in bytes.
    const LARGEST: usize = 150 * 1024;

    #[test]
    fn the_files_are_small_and_fetch_nothing_from_elsewhere() {
        let all = style().content.len() + script().content.len() + icon().content.len();
        assert!(all < LARGEST, "{all}");
        for file in [style(), script()] {
            for word in ["://", "@import", "url(", "eval(", "innerHTML"] {
                assert!(!file.content.contains(word), "{word} in {}", file.name);
            }
        }
    }
}
