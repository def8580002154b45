//! What turns one lab into another, as the commands that do it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{network, rest, sets, tables};
use crate::model::{BaseChain, Change, Host, HostChange, Lab, Part, Rule, Table, TableFamily, TableId};
use crate::query::Error;

pub use super::script::RuleEdit;

/// What became of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It is new.
    Added,
    /// It is gone.
    Deleted,
    /// It is there in both.
    Changed,
}

/// How a chain becomes another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChainEdits {
    /// Its table.
    pub table: TableId,
    /// Its name.
    pub chain: String,
    /// What became of it.
    pub fate: Fate,
    /// Where it was hooked in.
    pub old_base: Option<BaseChain>,
    /// Where it is hooked in.
    pub new_base: Option<BaseChain>,
    /// The rules it had.
    pub old: Vec<Rule>,
    /// The rules it has.
    pub new: Vec<Rule>,
    /// The shortest edit script, in the order of the chains. Rules that are in
    /// no edit are kept, in their order.
    pub edits: Vec<RuleEdit>,
}

/// How a host becomes another.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostEdits {
    /// Its name.
    pub host: String,
    /// The chains that differ, by table.
    pub chains: Vec<ChainEdits>,
    /// What is to be done, in an order that a kernel takes: each change is for
    /// the host as it is when those before it are made.
    pub changes: Vec<Change>,
    /// What differs and that no change of [`Change`] says, by name.
    pub unsaid: Vec<String>,
}

impl HostEdits {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.changes.is_empty() && self.unsaid.is_empty()
    }
}

/// How a lab becomes another.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Edits {
    /// The hosts that differ, by name.
    pub hosts: Vec<HostEdits>,
    /// What differs of the lab as a whole and that no command says: wires,
    /// hosts that only one has.
    pub unsaid: Vec<String>,
}

impl Edits {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.unsaid.is_empty()
    }

    /// Every change, in order, with its host.
    ///
    /// ```
    /// use lab_core::query::diff::edits::edits;
    /// use lab_core::query::what_if::what_if;
    /// use lab_core::Lab;
    /// let (a, b) = (Lab::default(), Lab::default());
    /// let edits = edits(&a, &b)?;
    /// assert_eq!(what_if(&a, &edits.changes())?, b);
    /// # Ok::<(), lab_core::query::Error>(())
    /// ```
    pub fn changes(&self) -> Vec<HostChange> {
        let of = |host: &HostEdits| {
            let changes = host.changes.iter().cloned();
            let name = host.host.clone();
            changes.map(move |change| HostChange { host: name.clone(), change }).collect::<Vec<_>>()
        };
        self.hosts.iter().flat_map(of).collect()
    }
}

/// What turns one lab into another, host by host.
///
/// Rules are equal when they mean the same, however they are spelt. Counters,
/// handles, where things were read, the order of chains and tables, what
/// bridges have learned and which neighbours answer are no differences. Of
/// settings, those of `net.` are looked at: others decide about no packet.
///
/// What a snapshot does not tell of a host ([`Host::unknown`]) is not compared,
/// and named. Everything else that differs is a change or is named as unsaid.
///
/// # Errors
///
/// [`Error::Unfit`]: a host that a program made has two tables, or two chains
/// of a table, of one name.
pub fn edits(from: &Lab, to: &Lab) -> Result<Edits, Error> {
    let mut edits = Edits { hosts: Vec::new(), unsaid: rest::of_labs(from, to) };
    for (name, b) in &to.hosts {
        let Some(a) = from.hosts.get(name).filter(|a| !Arc::ptr_eq(a, b)) else { continue };
        let host = of_hosts(a, b)?;
        if !host.is_empty() {
            edits.hosts.push(host);
        }
    }
    Ok(edits)
}

/// What turns one rule set file into another: the tables of a host of which
/// nothing else is known.
///
/// ```
/// use lab_core::addr::Family;
/// use lab_core::formats::{command, iptables};
/// use lab_core::model::Host;
/// use lab_core::query::diff::edits::{edits_of_tables, RuleEdit};
///
/// let read = |rules: &str| {
///     let text = format!("*filter\n:FORWARD ACCEPT [0:0]\n{rules}COMMIT\n");
///     iptables::parse("iptables.save", text, Family::Ipv4)
/// };
/// let old = read("-A FORWARD -i eth0 -j ACCEPT\n-A FORWARD -j DROP\n")?;
/// let new = read("-A FORWARD -i eth0 -j ACCEPT\n-A FORWARD -i eth1 -j ACCEPT\n-A FORWARD -j DROP\n")?;
/// let edits = edits_of_tables(&old, &new)?;
/// assert_eq!(edits.chains[0].edits, [RuleEdit::Insert { new: 2 }]);
/// let command = command::print(&Host::default(), &edits.changes[0])?;
/// assert_eq!(command, "iptables -t filter -I FORWARD 2 -i eth1 -j ACCEPT");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// As [`edits`].
pub fn edits_of_tables(from: &[Table], to: &[Table]) -> Result<HostEdits, Error> {
    let found = tables::of_hosts(from, to, &Default::default())?;
    let mut changes = found.first;
    changes.extend(found.then);
    Ok(HostEdits { host: String::new(), chains: found.chains, changes, unsaid: found.unsaid })
}

/// The tables of a host of which both sides tell.
fn comparable<'h>(host: &'h Host, a: &Host, b: &Host) -> std::borrow::Cow<'h, [Table]> {
    let hidden = |part: Part| a.unknown.contains(&part) != b.unknown.contains(&part);
    let (v4, v6) = (hidden(Part::Firewall4), hidden(Part::Firewall6));
    if !v4 && !v6 {
        return host.ruleset.tables.as_slice().into();
    }
    let shown = |table: &&Table| match table.family {
        TableFamily::Ip => !v4,
        TableFamily::Ip6 => !v6,
        TableFamily::Inet | TableFamily::Arp | TableFamily::Bridge | TableFamily::Netdev => !(v4 && v6),
    };
    host.ruleset.tables.iter().filter(shown).cloned().collect::<Vec<_>>().into()
}

/// What turns one host into another.
pub(in crate::query) fn of_hosts(a: &Host, b: &Host) -> Result<HostEdits, Error> {
    let mut unsaid = Vec::new();
    let mut ipsets = sets::of_hosts(&a.ipsets, &b.ipsets);
    let found = tables::of_hosts(&comparable(a, a, b), &comparable(b, a, b), &ipsets.redefined)?;
    let mut changes = std::mem::take(&mut ipsets.early);
    changes.extend(found.first);
    changes.append(&mut ipsets.middle);
    changes.extend(found.then);
    changes.append(&mut ipsets.late);
    unsaid.extend(ipsets.unsaid);
    unsaid.extend(found.unsaid);
    let (network, state) = network::of_hosts(a, b, &mut unsaid);
    changes.extend(network);
    unsaid.extend(rest::of_hosts(&state, b));
    Ok(HostEdits { host: b.name.clone(), chains: found.chains, changes, unsaid })
}
