//! A judged policy as text.

use std::fmt::Write as _;

use super::reach::decision;
use super::{safe, trace};
use crate::model::Decision;
use crate::query::policy::{Checked, Demand, Met};

/// The answer to `lab check SNAPSHOT POLICY.toml`: each demand, and for those
/// that are not met a counterexample with its trace.
pub fn policy(checked: &Checked, coverage: bool) -> String {
    let mut out = String::new();
    for judged in &checked.demands {
        let met = match judged.met {
            Met::Yes => "holds",
            Met::Possible => "may fail",
            Met::No => "FAILS",
        };
        let must = match judged.demand {
            Demand::MustReach => "must reach",
            Demand::MustNotReach => "must not reach",
        };
        let service = judged.service.map_or("by any new connection".to_owned(), |s| format!("by {s}"));
        let name = judged.name.as_ref().map(|n| format!(" ({n})")).unwrap_or_default();
        let line = format!("{met:<8}  {} {must} {} {service}{name}", judged.from, judged.to);
        let _ = writeln!(out, "{}", safe(&line));
        if let Some(packet) = &judged.counterexample {
            let _ = writeln!(out, "  counterexample: {packet}");
        }
        if let Some(answer) = &judged.trace {
            for line in trace(answer, false).lines() {
                let _ = writeln!(out, "    {line}");
            }
        }
    }
    let failing = checked.demands.iter().filter(|d| d.met != Met::Yes).count();
    let _ = writeln!(out, "{} demands, {failing} not met", checked.demands.len());
    let uncovered = checked.uncovered.len();
    let _ = writeln!(
        out,
        "{} rules decide about packets of the policy; {uncovered} with a verdict decide about none",
        checked.covered
    );
    if coverage {
        for rule in &checked.uncovered {
            let _ = writeln!(out, "  {}", decision(&Decision::Rule(rule.clone())));
        }
    }
    out
}
