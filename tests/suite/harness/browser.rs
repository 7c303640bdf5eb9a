//! Debian's Chromium, driven by `playwright-core`, with `axe-core` to judge pages for people. Two at a time: they are heavy.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::place::skipped;
use super::wait::PATIENCE;

const REMEDY: &str =
    "apt-get install chromium nodejs npm; npm install --prefix target/browser playwright-core axe-core";

/// The widths pages are looked at: a telephone's and a desk's.
pub(crate) const WIDTHS: [u32; 2] = [360, 1_440];

static PLACES: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];

/// A browser with one page. Ended when dropped.
pub(crate) struct Browser {
    child: Child,
    input: Option<ChildStdin>,
    answers: Receiver<String>,
    _home: TempDir,
    _place: MutexGuard<'static, ()>,
}

/// Waits for one of the places. A test that panicked has given its own back.
fn place() -> MutexGuard<'static, ()> {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let free = PLACES.iter().find_map(|place| match place.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    });
    let turn = ASKED.fetch_add(1, Ordering::Relaxed) % PLACES.len();
    free.unwrap_or_else(|| PLACES[turn].lock().unwrap_or_else(PoisonError::into_inner))
}

/// Something on a page.
#[derive(Clone)]
pub(crate) struct At(Value);

/// By what a screen reader says it is, and its name.
pub(crate) fn role(role: &str, name: &str) -> At {
    At(json!({"role": role, "name": name}))
}

pub(crate) fn button(name: &str) -> At {
    role("button", name)
}

pub(crate) fn link(name: &str) -> At {
    role("link", name)
}

/// What has this label.
pub(crate) fn field(label: &str) -> At {
    At(json!({"label": label}))
}

pub(crate) fn css(selector: &str) -> At {
    At(json!({"css": selector}))
}

impl At {
    /// The one of them that shows this text.
    pub(crate) fn with(mut self, text: &str) -> Self {
        self.0["has"] = text.into();
        self
    }
}

impl Browser {
    /// With an empty page 1,440 pixels wide. `None`, said aloud, where there is no browser.
    pub(crate) fn start(test: &str) -> Option<Self> {
        let (chromium, modules) = match installed() {
            Ok(installed) => installed,
            Err(missing) => {
                skipped(test, &format!("{missing}; {REMEDY}"));
                return None;
            }
        };
        let place = place();
        let home = TempDir::new().unwrap();
        let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/harness/browser.mjs");
        let mut child = Command::new("node")
            .arg(driver)
            .arg(modules)
            .arg(chromium)
            .arg(PATIENCE.as_millis().to_string())
            .env("HOME", home.path())
            .env("TMPDIR", home.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (send, answers) = mpsc::channel();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| send.send(line)));
        let mut browser = Self { input: child.stdin.take(), child, answers, _home: home, _place: place };
        browser.answer("the start of the browser");
        browser.open(true);
        Some(browser)
    }

    /// A new page of a new visitor, with or without script.
    pub(crate) fn open(&mut self, script: bool) {
        self.ask(&json!({"do": "open", "script": script, "width": WIDTHS[1], "scheme": "light"}));
    }

    /// Goes to an address and gives the answer's status.
    pub(crate) fn go(&mut self, url: &str) -> u64 {
        self.ask(&json!({"do": "go", "url": url})).as_u64().unwrap()
    }

    pub(crate) fn click(&mut self, at: &At) {
        self.ask(&json!({"do": "click", "at": at.0}));
    }

    pub(crate) fn fill(&mut self, at: &At, text: &str) {
        self.ask(&json!({"do": "fill", "at": at.0, "text": text}));
    }

    /// Waits until it is there to be seen.
    pub(crate) fn see(&mut self, at: &At) {
        self.ask(&json!({"do": "see", "at": at.0}));
    }

    /// The text that it shows.
    pub(crate) fn text(&mut self, at: &At) -> String {
        self.ask(&json!({"do": "text", "at": at.0})).as_str().unwrap().to_owned()
    }

    /// How many there are now.
    pub(crate) fn count(&mut self, selector: &str) -> u64 {
        self.ask(&json!({"do": "count", "css": selector})).as_u64().unwrap()
    }

    /// A key, as `Enter`.
    pub(crate) fn press(&mut self, key: &str) {
        self.ask(&json!({"do": "press", "key": key}));
    }

    /// Types into what has the focus.
    pub(crate) fn type_in(&mut self, text: &str) {
        self.ask(&json!({"do": "type", "text": text}));
    }

    /// Presses Tab until it has the focus.
    pub(crate) fn tab_to(&mut self, at: &At) {
        self.ask(&json!({"do": "tab", "at": at.0}));
    }

    pub(crate) fn url(&mut self) -> String {
        self.ask(&json!({"do": "url"})).as_str().unwrap().to_owned()
    }

    /// The value of an expression of JavaScript on the page.
    pub(crate) fn run(&mut self, code: &str) -> Value {
        self.ask(&json!({"do": "run", "code": code}))
    }

    /// Has the page `width` pixels wide, in the `light` or `dark` scheme.
    pub(crate) fn view(&mut self, width: u32, scheme: &str) {
        self.ask(&json!({"do": "view", "width": width, "scheme": scheme}));
    }

    /// What is wrong with the page for people, in its present view.
    pub(crate) fn barriers(&mut self) -> Vec<String> {
        strings(&self.ask(&json!({"do": "axe"})))
    }

    /// Whether the page is wider than the window.
    pub(crate) fn scrolls_sideways(&mut self) -> bool {
        self.run("document.documentElement.scrollWidth > document.documentElement.clientWidth") == true
    }

    /// What the browser has complained of since the page was opened: errors, violations of the page's policy, dialogs,
    /// requests to elsewhere.
    #[track_caller]
    pub(crate) fn assert_content(&mut self) {
        let problems = strings(&self.ask(&json!({"do": "problems"})));
        assert!(problems.is_empty(), "{}", problems.join("\n"));
    }

    /// What the browser has complained of, which is forgotten.
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        strings(&self.ask(&json!({"do": "problems"})))
    }

    #[track_caller]
    fn ask(&mut self, what: &Value) -> Value {
        let written = self.input.as_mut().is_some_and(|input| writeln!(input, "{what}").is_ok());
        assert!(written, "the browser is gone; asked for {what}");
        self.answer(&what.to_string())
    }

    #[track_caller]
    fn answer(&mut self, asked: &str) -> Value {
        // The driver gives up first, and says why.
        let line = self.answers.recv_timeout(PATIENCE * 3);
        let line = line.unwrap_or_else(|_| panic!("no answer of the browser to {asked}"));
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(answer["error"].is_null(), "{asked}: {}", answer["error"].as_str().unwrap_or_default());
        answer["ok"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // At the end of its input the driver ends Chromium, then itself.
        drop(self.input.take());
        if super::wait::until_for(Duration::from_secs(20), || self.child.try_wait().ok().flatten()).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn strings(list: &Value) -> Vec<String> {
    let texts = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

/// Chromium and the directory of the modules, or what there is not.
fn installed() -> Result<(PathBuf, PathBuf), String> {
    let chromium = PathBuf::from("/usr/bin/chromium");
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/browser");
    let node = Command::new("node").arg("--version").output().is_ok_and(|output| output.status.success());
    if !chromium.exists() {
        Err("there is no /usr/bin/chromium".to_owned())
    } else if !node {
        Err("there is no node".to_owned())
    } else if !["playwright-core", "axe-core"].iter().all(|name| modules.join("node_modules").join(name).is_dir()) {
        Err(format!("{} has no playwright-core or axe-core", modules.display()))
    } else {
        Ok((chromium, modules))
    }
}
