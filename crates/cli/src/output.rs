//! What goes to standard output: lines, and tables whose columns fit the terminal.

use std::io::{self, Write as _};

/// Writes text and a line end. A reader that went away (such as `head`) is no failure.
///
/// # Errors
/// What the operating system says, but not that the pipe was closed.
pub(crate) fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Writes bytes as they are.
///
/// # Errors
/// As [`line`].
pub(crate) fn raw(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Rows under headings, columns as wide as their widest cell. The last column is not padded.
pub(crate) fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = headings.map(|it| it.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut lines = vec![aligned(&headings, &widths)];
    lines.extend(rows.iter().map(|row| aligned(&row.each_ref().map(String::as_str), &widths)));
    lines.join("\n")
}

fn aligned<const N: usize>(cells: &[&str; N], widths: &[usize; N]) -> String {
    let padded: Vec<String> =
        cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
    padded.join("  ").trim_end().to_owned()
}

/// Text from outside for a terminal: control characters are shown, not obeyed.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|it| {
            let escaped: Vec<char> =
                if it.is_control() { it.escape_default().collect() } else { vec![it] };
            escaped
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_their_headings() {
        let rows = [["a".into(), "bb".into()], ["ccc".into(), String::new()]];
        assert_eq!(table(["X", "Y"], &rows), "X    Y\na    bb\nccc");
    }

    #[test]
    fn text_from_outside_does_not_command_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jé\n"), "a\\u{1b}[2Jé\\n");
    }
}
