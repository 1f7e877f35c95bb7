//! Rows as columns, as kubectl shows them. Pure.

use super::terminal::safe;
use crate::text::one_line;

/// Longer than any name in Kubernetes.
const MAX_CELL: usize = 253;

pub fn table(rows: &[Vec<String>]) -> String {
    let cell = |text: &String| one_line(&safe(text), MAX_CELL);
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(cell).collect())
        .collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns)
        .map(|c| {
            rows.iter()
                .filter_map(|r| r.get(c))
                .map(|s| s.chars().count())
                .max()
                .unwrap_or_default()
        })
        .collect();
    let mut out = String::new();
    for row in &rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        out.push_str(cells.join("   ").trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_line_up() {
        let rows = [
            vec!["ID".to_string(), "NAME".into()],
            vec!["12".into(), "Müller".into()],
            vec!["1".into(), "x".into()],
        ];
        assert_eq!(super::table(&rows), "ID   NAME\n12   Müller\n1    x\n");
    }

    #[test]
    fn a_cell_is_one_short_visible_line() {
        let rows = [vec![format!("\u{1b}[2J\n{}", "x".repeat(100_000))]];
        let table = super::table(&rows);
        assert!(table.starts_with("<U+001B>[2J x"), "{table:.40}");
        assert!(table.lines().count() == 1 && table.len() < 300);
    }
}
