//! Predictions beside observations, as text.

use std::fmt::Write as _;

use super::safe;
use crate::query::observed::Comparison;

/// Renders comparisons: each disagreement, then the count.
pub fn comparisons(lab: &str, all: &[Comparison]) -> String {
    let mut out = String::new();
    let mut put = |text: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}", safe(&text));
    };
    for one in all.iter().filter(|c| !c.disagreements.is_empty()) {
        put(format!("probe {}: {}", one.id, one.question));
        for d in &one.disagreements {
            put(format!("  {}: observed {}, predicted {}", d.field, d.observed, d.predicted));
        }
    }
    let agree = all.iter().filter(|c| c.disagreements.is_empty()).count();
    let certain = all.iter().filter(|c| c.certain).count();
    let share = if all.is_empty() { 100.0 } else { 100.0 * certain as f64 / all.len() as f64 };
    put(format!("{lab}: {agree} of {} probes agree, {certain} certain ({share:.1} %)", all.len()));
    out
}
