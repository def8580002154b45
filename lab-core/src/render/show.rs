//! What was understood of a lab, as text.

use std::fmt::Write as _;

use super::safe;
use crate::query::show::{HostSummary, Summary};

/// Renders a summary.
pub fn summary(summary: &Summary) -> String {
    let mut out = String::new();
    let description = summary.description.as_deref().map(|d| format!(": {d}")).unwrap_or_default();
    put(&mut out, &format!("{}{description}", summary.name));
    put(&mut out, &format!("{} hosts, {} links", summary.hosts.len(), summary.links));
    for item in &summary.unmodelled {
        put(&mut out, &format!("  not understood: {} {} `{}`", item.origin, item.what, item.text));
    }
    for one in &summary.hosts {
        host(&mut out, one);
    }
    out
}

fn put(out: &mut String, text: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{}", safe(text));
}

fn host(out: &mut String, host: &HostSummary) {
    let kind = host.kind.as_deref().map(|k| format!(" ({k})")).unwrap_or_default();
    let parent = host.parent.as_deref().map(|p| format!(", on {p}")).unwrap_or_default();
    out.push('\n');
    put(out, &format!("{}{kind}{parent}", host.name));
    for i in &host.interfaces {
        let up = if i.up { "" } else { ", down" };
        let master = i.master.as_deref().map(|m| format!(", port of {m}")).unwrap_or_default();
        let addresses = i.addresses.iter().map(|a| format!(" {a}")).collect::<String>();
        let to = if i.leads_to.is_empty() { String::new() } else { format!(" -> {}", i.leads_to.join(", ")) };
        let details: String = i.details.iter().map(|d| format!(", {d}")).collect();
        put(out, &format!("  {} ({}{details}{up}{master}){addresses}{to}", i.name, i.kind));
    }
    put(
        out,
        &format!("  {} routes, {} policy rules, {} IP sets", host.routes, host.policy_rules, host.ipsets),
    );
    for t in &host.tables {
        let backend = format!("{:?}", t.backend).to_lowercase();
        put(
            out,
            &format!("  table {} {} ({backend}): {} chains, {} rules", t.family, t.name, t.chains, t.rules),
        );
    }
    for part in &host.unknown {
        put(out, &format!("  not told: {part}"));
    }
    for item in &host.unmodelled {
        put(out, &format!("  not understood: {}: {} `{}`", item.origin, item.what, item.text));
    }
}
