//! What a change changes: between two labs, or two rule sets.

pub mod flows;
pub mod packets;

use crate::model::Host;

/// Whether two hosts do the same to packets by what is known of them: what
/// was counted, and where it was read, aside.
fn same_host(a: &Host, b: &Host) -> bool {
    let tables = |h: &Host| h.ruleset.tables.len();
    a.interfaces == b.interfaces
        && a.routes.len() == b.routes.len()
        && a.routes.iter().zip(&b.routes).all(|(x, y)| {
            let mut x = x.clone();
            x.origin = y.origin.clone();
            x == *y
        })
        && a.rules.len() == b.rules.len()
        && a.rules.iter().zip(&b.rules).all(|(x, y)| {
            let mut x = x.clone();
            x.origin = y.origin.clone();
            x == *y
        })
        && a.neighbours == b.neighbours
        && a.sysctls == b.sysctls
        && a.unknown == b.unknown
        && tables(a) == tables(b)
        && a.ruleset.tables.iter().zip(&b.ruleset.tables).all(|(x, y)| same_table(x, y))
}

fn same_table(a: &crate::model::Table, b: &crate::model::Table) -> bool {
    (a.backend, a.family, &a.name, a.xtables) == (b.backend, b.family, &b.name, b.xtables)
        && a.sets == b.sets
        && a.chains.len() == b.chains.len()
        && a.chains.iter().zip(&b.chains).all(|(x, y)| {
            x.name == y.name
                && x.base == y.base
                && x.rules.len() == y.rules.len()
                && x.rules.iter().zip(&y.rules).all(|(r, s)| r.statements == s.statements)
        })
}

#[cfg(test)]
mod tests;
