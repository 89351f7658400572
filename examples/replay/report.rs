//! The tables, and the closing sentence.

use std::fmt::Write;

/// The result of one capacity of one trace. Ratios are from 0 to 1.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) capacity: u64,
    /// The percentage on the command line, if it was one.
    pub(crate) percent: Option<f64>,
    /// Belady's optimum; bounded by bytes, an upper bound of it.
    pub(crate) optimum: f64,
    pub(crate) lru: f64,
    /// One per policy.
    pub(crate) ratios: Vec<f64>,
    /// Requests per second of the first policy.
    pub(crate) rate: f64,
    /// Peak heap bytes of the first policy.
    pub(crate) peak: usize,
}

/// The results of one trace.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) name: String,
    pub(crate) requests: usize,
    pub(crate) unique: usize,
    /// The sum of the keys' sizes, when the cache is bounded by bytes.
    pub(crate) bytes: Option<u64>,
    pub(crate) threads: usize,
    pub(crate) policies: Vec<&'static str>,
    pub(crate) rows: Vec<Row>,
}

impl Report {
    /// Returns the name of the first column of ratios.
    pub(crate) fn optimum_name(&self) -> &'static str {
        if self.bytes.is_some() { "PFOO-L" } else { "OPT" }
    }

    /// Returns the table as text.
    pub(crate) fn table(&self) -> String {
        let first = self.policies.first().copied().unwrap_or_default();
        let mut head: Vec<String> = vec!["capacity".into(), self.optimum_name().into(), "exact LRU".into()];
        head.extend(self.policies.iter().map(|&name| name.to_owned()));
        head.extend(["Mreq/s".into(), "peak heap".into()]);
        let lines: Vec<Vec<String>> = self.rows.iter().map(|row| self.cells(row)).collect();
        let width = |column: usize| {
            let cells = lines.iter().chain([&head]).map(|line| line[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();

        let mut out = format!(
            "{}: {} requests, {} keys",
            self.name,
            grouped(self.requests as u64),
            grouped(self.unique as u64)
        );
        if let Some(bytes) = self.bytes {
            let _ = write!(out, ", {} in all", bytes_text(bytes));
        }
        if self.threads > 1 {
            let _ = write!(out, "; {} threads", self.threads);
        }
        out.push('\n');
        for line in [&head].into_iter().chain(&lines) {
            let cells = line.iter().zip(&widths).map(|(cell, &width)| format!("{cell:>width$}"));
            let _ = writeln!(out, "  {}", cells.collect::<Vec<_>>().join("  "));
        }
        let _ = writeln!(
            out,
            "  Hit ratios in percent; Mreq/s and peak heap are those of {first}."
        );
        if self.bytes.is_some() {
            out.push_str(
                "  No optimum is computed for bytes (it is NP-hard); PFOO-L is a bound that no cache can exceed.\n",
            );
        }
        out
    }

    fn cells(&self, row: &Row) -> Vec<String> {
        let mut capacity = if self.bytes.is_some() {
            bytes_text(row.capacity)
        } else {
            grouped(row.capacity)
        };
        if let Some(percent) = row.percent {
            let _ = write!(capacity, " ({percent}%)");
        }
        let mut cells = vec![capacity];
        cells.extend(
            [row.optimum, row.lru]
                .iter()
                .chain(&row.ratios)
                .map(|ratio| format!("{:.2}", ratio * 100.0)),
        );
        cells.extend([format!("{:.2}", row.rate / 1e6), bytes_text(row.peak as u64)]);
        cells
    }
}

/// Summarizes all reports in one sentence.
pub(crate) fn sentence(reports: &[Report]) -> String {
    let Some(sample) = reports.first() else {
        return String::new();
    };
    let first = sample.policies.first().copied().unwrap_or_default();
    let best = if sample.bytes.is_some() {
        "the PFOO-L bound"
    } else {
        "the optimum"
    };
    let rows = || reports.iter().flat_map(|report| &report.rows);
    let count = rows().count().max(1) as f64;
    // Ratios are summed before they are compared: at a capacity with almost no gap, a share of it
    // is meaningless.
    let gap: f64 = rows().map(|row| row.optimum - row.lru).sum::<f64>() / count;
    let gained: f64 = rows()
        .map(|row| row.ratios.first().unwrap_or(&0.0) - row.lru)
        .sum::<f64>()
        / count;
    let over = match (reports.len(), sample.rows.len()) {
        (1, 1) => String::new(),
        (1, rows) => format!(" (mean of {rows} capacities)"),
        (traces, _) => format!(" (mean of {traces} traces, {count} rows)"),
    };
    let points = format!("{:+.1} points of {:.1}", gained * 100.0, gap * 100.0);
    if gap < 0.000_5 {
        format!("Exact LRU is as good as {best} here: there is no gap for {first} to close{over}.")
    } else if gained.abs() / gap < 0.005 {
        format!(
            "{first} hits as often as exact LRU here, {:.1} points below {best}{over}.",
            gap * 100.0
        )
    } else if gained < 0.0 {
        let lost = -gained / gap * 100.0;
        format!("{first} falls behind exact LRU by {lost:.0}% of LRU's gap to {best} here: {points}{over}.")
    } else {
        let closed = gained / gap * 100.0;
        format!("{first} closes {closed:.0}% of the gap between exact LRU and {best} here: {points}{over}.")
    }
}

/// Formats a number with a comma between thousands.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Formats a number of bytes in the unit that suits it.
pub(crate) fn bytes_text(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            let decimals = if unit == "B" || value >= 100.0 { 0 } else { 1 };
            return format!("{value:.decimals$} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A report with one row per triple of optimum, exact LRU and W-TinyLFU.
    pub(crate) fn report(name: &str, ratios: &[(f64, f64, f64)]) -> Report {
        let row = |(i, &(optimum, lru, first)): (usize, &(f64, f64, f64))| Row {
            capacity: 10u64.pow(i as u32 + 2),
            percent: Some(0.5),
            optimum,
            lru,
            ratios: vec![first, lru],
            rate: 12.34e6,
            peak: 3 << 20,
        };
        Report {
            name: name.to_owned(),
            requests: 1_234_567,
            unique: 1_000,
            bytes: None,
            threads: 1,
            policies: vec!["W-TinyLFU", "LRU"],
            rows: ratios.iter().enumerate().map(row).collect(),
        }
    }

    #[test]
    fn tables_are_aligned() {
        let table = report("t", &[(0.5, 0.1, 0.3), (1.0, 0.9, 0.95)]).table();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[0], "t: 1,234,567 requests, 1,000 keys");
        assert!(lines[1..4].iter().all(|line| line.len() == lines[1].len()), "{table}");
        assert!(
            lines[3].contains("1,000 (0.5%)  100.00") && lines[3].ends_with("12.34    3.0 MiB"),
            "{table}"
        );
    }

    #[test]
    fn the_sentence_tells_what_happened() {
        let says = |ratios, what: &str| {
            let sentence = sentence(&[report("t", &[ratios])]);
            assert!(sentence.starts_with(what), "{sentence}");
        };
        says(
            (0.6, 0.2, 0.4),
            "W-TinyLFU closes 50% of the gap between exact LRU and the optimum here: +20.0 points",
        );
        says((0.6, 0.2, 0.1), "W-TinyLFU falls behind exact LRU by 25%");
        says((0.6, 0.2, 0.2), "W-TinyLFU hits as often as exact LRU");
        says((0.2, 0.2, 0.2), "Exact LRU is as good as the optimum");
    }

    #[test]
    fn units() {
        assert_eq!(bytes_text(1_023), "1023 B");
        assert_eq!(bytes_text(1_536), "1.5 KiB");
        assert_eq!(bytes_text(u64::MAX), "16777216.0 TiB");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(999), "999");
    }
}
