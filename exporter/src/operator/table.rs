//! Columns that stand one below the other.

/// The rows as lines, each column as wide as its widest cell. Control characters, which may not reach a terminal, are replaced.
pub(super) fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let rows: Vec<_> = rows.iter().map(|row| row.each_ref().map(|cell| printable(cell))).collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut lines = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        lines.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        lines.push('\n');
    }
    lines
}

/// A text that others wrote, such as an operator's reason, in one line.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_have_no_tail() {
        let row = |a: &str, b: &str| [a.to_owned(), b.to_owned()];
        let text = aligned(&[row("TAG", "NOTE"), row("TÜST-02", ""), row("a\x1b[2J", "b")]);
        assert_eq!(text, "TAG      NOTE\nTÜST-02\na\u{fffd}[2J    b\n");
    }
}
