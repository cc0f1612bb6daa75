//! The table, as docs/BENCHMARKS.md wants it.

use std::fmt::Write;

use super::rows::{Goal, What, Work};
use super::run::Figures;
use super::targets::Kind;

/// Medians of one work.
pub struct Row {
    /// The work.
    pub work: Work,
    /// What each target came to; those that failed are missing.
    pub figures: Vec<(Kind, Figures)>,
}

/// Columns of figures.
const COLUMNS: [&str; 5] = ["HAProxy", "nginx", "nginx-rtmp", "floor", "relay"];

impl Row {
    fn of(&self, name: &str) -> Option<&Figures> {
        self.figures.iter().find(|(kind, _)| kind.name() == name).map(|(_, figures)| figures)
    }

    fn ratio(&self, to: &str) -> Option<f64> {
        Some(self.of("relay")?.cost / self.of(to)?.cost)
    }

    fn goal(&self) -> String {
        match self.work.goal {
            Goal::AtMost(goal) => format!("≤ {goal:.1}"),
            Goal::AtLeast(goal) => format!("≥ {goal:.1}"),
            Goal::Absolute(goal) => format!("≤ {goal} kB"),
            Goal::None => String::new(),
        }
    }

    fn met(&self) -> bool {
        let ratio = self.ratio("HAProxy");
        match self.work.goal {
            Goal::AtMost(goal) => ratio.is_some_and(|ratio| ratio <= goal),
            Goal::AtLeast(goal) => ratio.is_some_and(|ratio| ratio >= goal),
            Goal::Absolute(goal) => self.of("relay").is_some_and(|figures| figures.cost <= goal),
            Goal::None => false,
        }
    }
}

/// The whole page: what ran where, by which command, and the table.
pub fn page(machine: &str, command: &str, rows: &[Row]) -> String {
    let mut page = format!("{machine}\n\n`{command}`\n\n| work | figure |");
    COLUMNS.iter().for_each(|column| write!(page, " {column} |").unwrap_or_default());
    page.push_str(" relay / HAProxy | target | relay / floor | p50, p99, ms: HAProxy | floor | relay |\n|---|---|");
    page.push_str(&"---|".repeat(COLUMNS.len() + 6));
    page.push('\n');
    for row in rows {
        let _ = write!(page, "| {} | {} |", row.work.name, row.work.what.unit());
        for column in COLUMNS {
            let _ = write!(page, " {} |", row.of(column).map(|figures| figure(row, figures)).unwrap_or_default());
        }
        let ratio = |to| row.ratio(to).filter(|ratio| ratio.is_finite());
        let of = ratio("HAProxy").map(|ratio| format!("**{ratio:.2}**{}", if row.met() { " ✓" } else { "" })).unwrap_or_default();
        let floor = ratio("floor").map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
        let _ = write!(page, " {of} | {} | {floor} |", row.goal());
        for column in ["HAProxy", "floor", "relay"] {
            let _ = write!(page, " {} |", row.of(column).map(|figures| latency(row, figures)).unwrap_or_default());
        }
        page.push('\n');
    }
    page.push_str(&growth(rows));
    page.push_str(&notes(rows));
    page
}

fn figure(row: &Row, figures: &Figures) -> String {
    let digits = if matches!(row.work.what, What::Sessions { .. } | What::Capacity { .. }) { 0 } else { 2 };
    let mut text = format!("{:.digits$}", figures.cost);
    match row.work.what {
        What::Unpaced { .. } => _ = write!(text, " ({:.1} Gb/s)", figures.rate),
        What::Idle { .. } => _ = write!(text, " ({:.1} %)", figures.rate),
        What::Crowd { scraped: true, .. } => _ = write!(text, " (a scrape: {:.1} ms)", figures.rate),
        _ => {}
    }
    if figures.full {
        text.push('*');
    }
    if figures.late {
        text.push('†');
    }
    text
}

fn latency(row: &Row, figures: &Figures) -> String {
    match row.work.what {
        What::Unpaced { .. } | What::Idle { .. } => String::new(),
        _ => format!("{:.2}, {:.2}", figures.p50, figures.p99),
    }
}

/// What a stream costs among many, beside what it costs among few.
fn growth(rows: &[Row]) -> String {
    let rows: Vec<&Row> = rows.iter().filter(|row| row.work.name.starts_with("growth")).collect();
    let mut said = Vec::new();
    for column in COLUMNS {
        let costs: Vec<f64> = rows.iter().filter_map(|row| row.of(column)).map(|figures| figures.cost).collect();
        if let Some(first) = costs.first().filter(|_| costs.len() > 1) {
            let ratios: Vec<String> = costs.iter().map(|cost| format!("{:.2}", cost / first)).collect();
            said.push(format!("{column} {}", ratios.join(", ")));
        }
    }
    if said.is_empty() { String::new() } else { format!("\nGrowth, a stream's cost to the first row's: {}.\n", said.join("; ")) }
}

fn notes(rows: &[Row]) -> String {
    let any = |of: fn(&Figures) -> bool| rows.iter().flat_map(|row| &row.figures).any(|(_, figures)| of(figures));
    let mut text = String::new();
    if any(|figures| figures.full) {
        text.push_str("\n\\* its core was full: it passed on less than what was sent, and latency is the length of its queue.\n");
    }
    if any(|figures| figures.late) {
        text.push_str("\n† the generator itself was late: its core was full, and latency is its own in part.\n");
    }
    text
}
