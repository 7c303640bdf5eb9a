//! Tables that fit the terminal. Pure: rows and a width go in, lines come out.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::printer::{Colour, Line};
use super::words::printable;

/// One column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    title: &'static str,
    /// Columns with a higher rank are left out first when the terminal is too narrow; rank 0 always stays.
    rank: u8,
    /// A longer text goes on in further lines, below itself. For the last column.
    folds: bool,
}

impl Column {
    pub(super) const fn keep(title: &'static str) -> Self {
        Self { title, rank: 0, folds: false }
    }

    pub(super) const fn fold(title: &'static str) -> Self {
        Self { title, rank: 0, folds: true }
    }

    pub(super) const fn drop_at(title: &'static str, rank: u8) -> Self {
        Self { title, rank, folds: false }
    }
}

/// A cell: any text, made printable here.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    colour: Option<Colour>,
}

impl Cell {
    pub(super) fn new(text: impl AsRef<str>) -> Self {
        Self { text: printable(text.as_ref()), colour: None }
    }

    pub(super) fn coloured(text: impl AsRef<str>, colour: Colour) -> Self {
        Self { colour: Some(colour), ..Self::new(text) }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text)
    }
}

/// The minimum width to which a column is cut.
const NARROWEST: usize = 8;
/// The minimum width of a column that folds, while others can be left out for it.
const READABLE: usize = 30;
const GAP: usize = 2;

/// Lays out the rows in at most `width` characters; without a width (a pipe, a file) nothing is cut or left out.
pub(super) fn layout(columns: &[Column], rows: &[Vec<Cell>], width: Option<usize>) -> Vec<Line> {
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let natural: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(n, column)| rows.iter().map(|row| length(&row[n].text)).max().unwrap_or(0).max(length(column.title)))
        .collect();
    let total = |shown: &[usize], widths: &[usize]| {
        shown.iter().map(|n| widths[*n]).sum::<usize>() + GAP * shown.len().saturating_sub(1)
    };
    let mut widths = natural;
    if let Some(width) = width {
        let narrowed = |shown: &[usize], widths: &mut [usize], least: usize| {
            for n in shown.iter().copied().filter(|n| columns[*n].folds) {
                let over = total(shown, widths).saturating_sub(width);
                widths[n] = widths[n].min(widths[n].saturating_sub(over).max(least));
            }
        };
        narrowed(&shown, &mut widths, READABLE);
        // Leaving out a lesser column keeps ids whole, so that they can be copied.
        while total(&shown, &widths) > width {
            let worst = shown.iter().copied().filter(|n| columns[*n].rank > 0).max_by_key(|n| columns[*n].rank);
            let Some(worst) = worst else { break };
            shown.retain(|n| *n != worst);
        }
        narrowed(&shown, &mut widths, NARROWEST);
        while total(&shown, &widths) > width {
            let Some(widest) = shown.iter().copied().max_by_key(|n| widths[*n]).filter(|n| widths[*n] > NARROWEST)
            else {
                break;
            };
            widths[widest] -= 1;
        }
    }
    let mut lines = Vec::with_capacity(rows.len() + 1);
    let titles: Vec<Cell> = columns.iter().map(|column| Cell::new(column.title)).collect();
    for row in std::iter::once(&titles).chain(rows) {
        let mut line = Line::default();
        let mut further = Vec::new();
        let mut indent = 0;
        for (place, n) in shown.iter().enumerate() {
            let last = place + 1 == shown.len();
            let (cell, room) = (&row[*n], widths[*n]);
            if last && columns[*n].folds && width.is_some() {
                let mut parts = fold(&cell.text, Some(room)).into_iter();
                line.push(&parts.next().unwrap_or_default(), cell.colour);
                further = parts.collect();
                continue;
            }
            let text = cut(&cell.text, room);
            let pad = if last { 0 } else { room - length(&text) + GAP };
            line.push(&text, cell.colour);
            line.push(&" ".repeat(pad), None);
            indent += room + GAP;
        }
        lines.push(line);
        lines.extend(further.iter().map(|part| Line::from(format!("{}{part}", " ".repeat(indent)))));
    }
    lines
}

/// The width of a text in terminal columns: a Chinese character takes two, a combining accent none.
pub(super) fn length(text: &str) -> usize {
    text.width()
}

fn cut(text: &str, width: usize) -> String {
    if length(text) <= width {
        return text.to_owned();
    }
    let mut left = width.saturating_sub(1);
    let fitting = text.chars().take_while(|c| {
        let fits = c.width().unwrap_or(0) <= left;
        left = left.saturating_sub(c.width().unwrap_or(0));
        fits
    });
    fitting.chain(['…']).collect()
}

/// A text after its head, folded under itself.
pub(super) fn hanging(head: &str, text: &str, width: Option<usize>) -> Vec<Line> {
    let indent = length(head);
    let room = width.map(|width| width.saturating_sub(indent)).filter(|room| *room >= NARROWEST);
    let head = |at| if at == 0 { head.to_owned() } else { " ".repeat(indent) };
    fold(&printable(text), room).iter().enumerate().map(|(at, part)| Line::from(head(at) + part)).collect()
}

/// Breaks a text at spaces into lines of at most `room` characters. A longer word is left whole: it is a path or a
/// command, to be copied.
pub(super) fn fold(text: &str, room: Option<usize>) -> Vec<String> {
    let Some(room) = room else { return vec![text.to_owned()] };
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ') {
        let length = length(word);
        if used > 0 && used + 1 + length > room {
            lines.push(String::new());
            used = 0;
        }
        let line = lines.last_mut().expect("there is one from the start");
        if used > 0 {
            line.push(' ');
            used += 1;
        }
        line.push_str(word);
        used += length;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(width: Option<usize>) -> Vec<String> {
        let columns = [Column::keep("DEVICE"), Column::drop_at("CREATED", 2), Column::drop_at("STATUS", 1)];
        let rows = [
            vec!["worker:prod:1".into(), "2026-11-23".into(), "active".into()],
            vec!["a\u{1b}[2J".into(), "-".into(), "revoked".into()],
        ];
        layout(&columns, &rows, width).iter().map(Line::plain).collect()
    }

    #[test]
    fn without_a_width_nothing_is_cut() {
        assert_eq!(
            table(None),
            [
                "DEVICE         CREATED     STATUS",
                "worker:prod:1  2026-11-23  active",
                "a�[2J          -           revoked"
            ]
        );
    }

    #[test]
    fn a_narrow_terminal_loses_lesser_columns_before_ids_are_cut() {
        assert_eq!(table(Some(24)), ["DEVICE         STATUS", "worker:prod:1  active", "a�[2J          revoked"]);
        assert_eq!(table(Some(14)), ["DEVICE", "worker:prod:1", "a�[2J"]);
        assert_eq!(table(Some(10)), ["DEVICE", "worker:pr…", "a�[2J"]);
        assert_eq!(table(Some(1)), ["DEVICE", "worker:…", "a�[2J"]);
    }

    #[test]
    fn a_text_that_is_too_long_goes_on_below_itself() {
        let columns = [Column::keep("ID"), Column::drop_at("ASKED", 1), Column::fold("WHAT")];
        let what = "unrevoke agent-07: it was repaired and looked at by two of us";
        let rows = [vec!["5f0c1e".into(), "10m ago".into(), what.into()]];
        let lines = |width| layout(&columns, &rows, width).iter().map(Line::plain).collect::<Vec<_>>();
        assert_eq!(lines(None), ["ID      ASKED    WHAT", &format!("5f0c1e  10m ago  {what}")]);
        assert_eq!(
            lines(Some(50)),
            [
                "ID      ASKED    WHAT",
                "5f0c1e  10m ago  unrevoke agent-07: it was",
                "                 repaired and looked at by two of",
                "                 us"
            ]
        );
        assert_eq!(lines(Some(40))[1], "5f0c1e  unrevoke agent-07: it was", "a lesser column goes before");
    }

    #[test]
    fn wide_characters_do_not_push_the_next_column_aside() {
        let columns = [Column::keep("NAME"), Column::keep("STATUS")];
        let rows = [vec!["日本".into(), "active".into()], vec!["e\u{301}té".into(), "revoked".into()]];
        let lines = |width| layout(&columns, &rows, width).iter().map(Line::plain).collect::<Vec<_>>();
        assert_eq!(lines(None), ["NAME  STATUS", "日本  active", "e\u{301}té   revoked"]);
        assert_eq!((cut("日本語日本語", 8), length(&cut("日本語日本語", 8))), ("日本語…".to_owned(), 7));
    }

    #[test]
    fn a_text_hangs_from_its_head() {
        let lines = |width| hanging("key: ", "from a file", width).iter().map(Line::plain).collect::<Vec<_>>();
        assert_eq!(lines(Some(14)), ["key: from a", "     file"]);
        assert_eq!(lines(None), ["key: from a file"]);
        assert_eq!(lines(Some(8)), ["key: from a file"], "too narrow to fold");
    }

    #[test]
    fn a_word_that_is_too_long_stays_whole() {
        assert_eq!(fold("a /a/very/long/path b", Some(6)), ["a", "/a/very/long/path", "b"]);
    }
}
