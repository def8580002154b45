//! The order of things at a hook, as data.
//!
//! Everything that runs at a hook does so by rising priority
//! (`include/uapi/linux/netfilter_ipv4.h`). NAT chains run where the NAT core
//! is hooked in, in the order of their own priorities.

use crate::addr::Family;
use crate::model::{
    Backend, BaseChain, Chain, ChainKind, Expression, Hook, Host, InterfaceKind, Mangle, Match, NatAddress,
    NftMatch, Rule, Statement, Table, TableFamily, Target,
};

/// What runs at a hook.
#[derive(Clone, Debug)]
pub enum Item<'a> {
    /// Connection tracking looks the packet up.
    Track,
    /// A base chain of kind filter or route.
    Chain(&'a Table, &'a Chain),
    /// NAT, with the chains it asks about a connection's first packet.
    Nat(Vec<(&'a Table, &'a Chain)>),
    /// The connection of a packet that came this far is remembered.
    Confirm,
}

/// Priority of connection tracking (`NF_IP_PRI_CONNTRACK`).
pub const CONNTRACK: i32 = -200;
/// Priority of destination NAT (`NF_IP_PRI_NAT_DST`).
pub const NAT_DESTINATION: i32 = -100;
/// Priority of source NAT (`NF_IP_PRI_NAT_SRC`).
pub const NAT_SOURCE: i32 = 100;

/// Whether both back ends have a chain of one priority at a hook. Those run
/// in the order in which they were registered, which a snapshot does not
/// tell across the back ends.
pub fn ambiguous(host: &Host, hook: Hook, family: Family) -> bool {
    let of = |backend: Backend| -> Vec<(bool, i32)> {
        let tables = host.ruleset.tables.iter().filter(|t| t.family.sees(family) && t.backend == backend);
        tables
            .flat_map(|t| &t.chains)
            .filter_map(|c| c.base)
            .filter(|b| b.hook == hook)
            .map(|b| (b.kind == ChainKind::Nat, b.priority))
            .collect()
    };
    let legacy = of(Backend::Legacy);
    of(Backend::Nft).iter().any(|p| legacy.contains(p))
}

/// What a chain at a hook shares its priority with: connection tracking or NAT. Of
/// the two the one registered later runs first (`nf_hook_entries_grow`), and a
/// snapshot does not tell when the first rule asked for connections, or for NAT.
pub fn tied(host: &Host, hook: Hook, family: Family) -> Option<&'static str> {
    let bases = || bases(host, family).filter(|base| base.hook == hook && base.kind != ChainKind::Nat);
    let at = |priority: i32| bases().any(|base| base.priority == priority);
    let nat = match hook {
        Hook::Prerouting | Hook::Output => NAT_DESTINATION,
        Hook::Input | Hook::Postrouting => NAT_SOURCE,
        Hook::Forward | Hook::Ingress => return None,
    };
    if nat == NAT_DESTINATION && at(CONNTRACK) && tracks(host, family) {
        return Some("connection tracking or a chain of its priority");
    }
    (at(nat) && translates(host, family)).then_some("NAT or a chain of its priority")
}

/// Whether a chain asks for NAT of a family, which is then hooked in everywhere.
fn translates(host: &Host, family: Family) -> bool {
    bases(host, family).any(|base| base.kind == ChainKind::Nat)
}

fn bases(host: &Host, family: Family) -> impl Iterator<Item = BaseChain> + '_ {
    let tables = host.ruleset.tables.iter().filter(move |t| t.family.sees(family));
    tables.flat_map(|t| &t.chains).filter_map(|c| c.base)
}

/// Whether a host tracks the connections of a family: rules say so by asking
/// about them, or by rewriting (`nf_ct_netns_get`; nft's by naming the family
/// that it rewrites, `nft_nat_init`). A chain for NAT alone does not, and is
/// not run then.
pub fn tracks(host: &Host, family: Family) -> bool {
    let asks = |rule: &Rule, statement: &Statement| match statement {
        Statement::Match(Match::Conntrack(_) | Match::Connmark(_)) => true,
        Statement::Match(Match::Unmodelled { name, text }) => sounds(name, text),
        Statement::Match(Match::Nft(condition)) => about_connection(&condition.left),
        Statement::Target(target) => match target {
            Target::Connmark(_) | Target::CtZone { .. } | Target::Netmap(_) => true,
            Target::Nat { range, .. } => match &range.address {
                Some(NatAddress::Range(first, _)) => Family::of(*first) == family,
                Some(NatAddress::Computed(_)) => !rule.statements.iter().any(|s| for_other(s, family)),
                None => true,
            },
            Target::Mangle(field, value) => *field == Mangle::CtMark || about_connection(value),
            Target::VerdictMap { key, .. } => about_connection(key),
            // It may be NAT of a kind that is not modelled.
            Target::Unmodelled { .. } => true,
            _ => false,
        },
        Statement::Match(_) => false,
    };
    let own = |table: &&Table| match table.family {
        TableFamily::Ip => family == Family::Ipv4,
        TableFamily::Ip6 => family == Family::Ipv6,
        _ => true,
    };
    let mut rules = host.ruleset.tables.iter().filter(own).flat_map(|t| &t.chains).flat_map(|c| &c.rules);
    rules.any(|rule| rule.statements.iter().any(|statement| asks(rule, statement)))
}

/// Whether a match lets only packets of another family pass: what is computed for
/// NAT stands behind one.
fn for_other(statement: &Statement, family: Family) -> bool {
    let other = match family {
        Family::Ipv4 => Family::Ipv6,
        Family::Ipv6 => Family::Ipv4,
    };
    matches!(statement, Statement::Match(Match::Nft(only)) if **only == NftMatch::of_family(other))
}

/// Whether a match that is not modelled asks for connections by its name, or as
/// nft's JSON has it.
fn sounds(name: &str, text: &str) -> bool {
    ["helper", "cluster"].contains(&name) || name.contains("conn") || text.contains("\"ct\"")
}

/// Why nothing is claimed of a broadcast that meets rules otherwise the second
/// time: a copy of it for the host itself passes POSTROUTING first, and settles the
/// connection for the one that leaves (`ip_mc_output`, `ip_output`).
pub(crate) const TWICE: &str = "a broadcast passes POSTROUTING twice";

/// Whether rules may treat the second copy of a broadcast otherwise than the first
/// ([`TWICE`]): they ask whether its connection is settled, or mark it, or a chain
/// for NAT changes more than ends.
pub(crate) fn twice_differs(host: &Host) -> bool {
    let of = |what: fn(&Expression) -> bool| {
        let asks = move |statement: &Statement| match statement {
            Statement::Match(Match::Nft(condition)) => has(&condition.left, &what),
            Statement::Target(Target::VerdictMap { key, .. } | Target::Mangle(_, key)) => has(key, &what),
            _ => false,
        };
        statements(host).any(asks)
    };
    let status = |s: &Statement| matches!(s, Statement::Match(Match::Conntrack(c)) if c.status.is_some());
    let marks = |s: &Statement| {
        matches!(s, Statement::Target(Target::Connmark(_) | Target::Mangle(Mangle::CtMark, _)))
    };
    let marked = |s: &Statement| {
        matches!(s, Statement::Match(Match::Connmark(_)) | Statement::Target(Target::Connmark(_)))
    };
    let any = |asks: fn(&Statement) -> bool| statements(host).any(asks);
    let by_mark = any(marks) && (any(marked) || of(|e| *e == Expression::CtMark));
    any(status) || of(|e| *e == Expression::CtStatus) || by_mark || alters_in_nat(host)
}

/// Whether a chain for NAT on leaving changes packets otherwise, too.
fn alters_in_nat(host: &Host) -> bool {
    let alters = |statement: &Statement| {
        matches!(statement, Statement::Target(Target::Mangle(..) | Target::Mark(_) | Target::Connmark(_)))
    };
    let on_leaving = |base: BaseChain| base.kind == ChainKind::Nat && base.hook == Hook::Postrouting;
    let tables = host.ruleset.tables.iter();
    tables
        .filter(|t| t.chains.iter().any(|c| c.base.is_some_and(on_leaving)))
        .flat_map(|t| &t.chains)
        .any(|c| c.rules.iter().flat_map(|r| &r.statements).any(alters))
}

/// Whether what an nft rule compares is certainly a connection's, or partly.
fn about_connection(expression: &Expression) -> bool {
    has(expression, &|part| {
        matches!(
            part,
            Expression::CtState
                | Expression::CtStatus
                | Expression::CtDirection
                | Expression::CtMark
                | Expression::CtAddress(..)
                | Expression::CtPort(..)
        )
    })
}

fn statements(host: &Host) -> impl Iterator<Item = &Statement> {
    let rules = host.ruleset.tables.iter().flat_map(|t| &t.chains).flat_map(|c| &c.rules);
    rules.flat_map(|rule| &rule.statements)
}

/// Whether an expression is made of one of a kind.
fn has(expression: &Expression, kind: &dyn Fn(&Expression) -> bool) -> bool {
    match expression {
        Expression::Concat(parts) => parts.iter().any(|part| has(part, kind)),
        Expression::And(a, b) | Expression::Or(a, b) | Expression::Xor(a, b) => has(a, kind) || has(b, kind),
        Expression::ShiftLeft(a, _) | Expression::ShiftRight(a, _) | Expression::Map(a, _) => has(a, kind),
        part => kind(part),
    }
}

fn leaves_by_vrf(host: &Host, output: Option<&str>) -> bool {
    output.and_then(|o| host.interface(o)).is_some_and(|o| matches!(o.kind, InterfaceKind::Vrf(_)))
}

/// What runs at a hook of a host for a family, in order. Of equal priorities
/// the one registered later runs first (`nf_hook_entries_grow`,
/// `net/netfilter/core.c`); `nft` lists tables and chains in that order.
/// `legacy_first` says which back end goes first where both have a chain of
/// one priority. `output` is the device that packets leave by: what leaves by a
/// VRF's is neither translated nor confirmed, that is left to where it comes in
/// again or to the port below (`in_vrf_postrouting`).
pub fn order<'a>(
    host: &'a Host,
    hook: Hook,
    family: Family,
    output: Option<&str>,
    legacy_first: bool,
) -> Vec<Item<'a>> {
    let mut items: Vec<(i32, u8, Item)> = Vec::new();
    let mut nat: Vec<(i32, u8, (&Table, &Chain))> = Vec::new();
    for table in host.ruleset.tables.iter().filter(|t| t.family.sees(family)) {
        for chain in &table.chains {
            let Some(base) = chain.base.filter(|b| b.hook == hook) else { continue };
            let rank = u8::from((table.backend == Backend::Legacy) != legacy_first);
            if base.kind == ChainKind::Nat {
                nat.push((base.priority, rank, (table, chain)));
            } else {
                items.push((base.priority, 1 + rank, Item::Chain(table, chain)));
            }
        }
    }
    let any_nat = translates(host, family);
    items.reverse();
    nat.reverse();
    nat.sort_by_key(|(priority, rank, _)| (*priority, *rank));
    let nat: Vec<_> = nat.into_iter().map(|(_, _, chain)| chain).collect();
    match hook {
        Hook::Prerouting | Hook::Output => {
            items.push((CONNTRACK, 0, Item::Track));
            if any_nat {
                items.push((NAT_DESTINATION, 0, Item::Nat(nat)));
            }
        }
        Hook::Postrouting if leaves_by_vrf(host, output) => {}
        Hook::Input | Hook::Postrouting => {
            if any_nat {
                items.push((NAT_SOURCE, 0, Item::Nat(nat)));
            }
            items.push((i32::MAX, 0, Item::Confirm));
        }
        Hook::Forward | Hook::Ingress => {}
    }
    items.sort_by_key(|(priority, rank, _)| (*priority, *rank));
    items.into_iter().map(|(_, _, item)| item).collect()
}
