//! The table that the bars are printed in.

use std::fmt;

/// One piece of work, measured.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was done.
    pub work: &'static str,
    /// On how much: `10,000 Services`.
    pub size: String,
    /// What it cost.
    pub ours: String,
    /// What it may cost; empty for rows that only show growth.
    pub bar: String,
    /// Whether it costs no more; none where there is no bar.
    pub met: Option<bool>,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let met = match self.met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "",
        };
        write!(f, "{:<34} {:<26} {:<44} {:<34} {met}", self.work, self.size, self.ours, self.bar)
    }
}

/// A time in the unit that suits it.
pub fn time(duration: std::time::Duration) -> String {
    let nanos = duration.as_nanos() as f64;
    match nanos {
        n if n < 1e3 => format!("{n:.0} ns"),
        n if n < 1e6 => format!("{:.2} us", n / 1e3),
        n if n < 1e9 => format!("{:.2} ms", n / 1e6),
        n => format!("{:.2} s", n / 1e9),
    }
}

/// The value below which `share` (from 0 to 1) of the samples lie.
pub fn quantile(samples: &mut [std::time::Duration], share: f64) -> std::time::Duration {
    samples.sort_unstable();
    let index = (samples.len().saturating_sub(1)) as f64 * share;
    samples.get(index.round() as usize).copied().unwrap_or_default()
}
