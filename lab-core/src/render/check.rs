//! Predictions beside observations, as text.

use std::fmt::Write as _;

use super::safe;
use crate::query::observed::{Checked, Comparison};

/// Renders comparisons: each disagreement, the count of each lab, and that of
/// all where there are several.
pub fn comparisons(labs: &[Checked]) -> String {
    let mut out = String::new();
    let mut put = |text: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}", safe(&text));
    };
    for lab in labs {
        for one in lab.probes.iter().filter(|c| !c.disagreements.is_empty()) {
            put(format!("probe {}: {}", one.id, one.question));
            for d in &one.disagreements {
                put(format!("  {}: observed {}, predicted {}", d.field, d.observed, d.predicted));
            }
        }
        put(count(&lab.lab, lab.probes.iter()));
    }
    if labs.len() > 1 {
        put(count("all", labs.iter().flat_map(|l| &l.probes)));
    }
    out
}

fn count<'a>(name: &str, probes: impl Iterator<Item = &'a Comparison>) -> String {
    let (mut all, mut agree, mut certain) = (0, 0, 0);
    for probe in probes {
        all += 1;
        agree += usize::from(probe.disagreements.is_empty());
        certain += usize::from(probe.certain);
    }
    let share = if all == 0 { 100.0 } else { 100.0 * certain as f64 / all as f64 };
    format!("{name}: {agree} of {all} probes agree, {certain} certain ({share:.1} %)")
}
