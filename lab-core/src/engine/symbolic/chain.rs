//! Chains as diagrams: what a table does to every packet at once.
//!
//! A chain becomes a diagram whose leaves say how it ends, by which rule, and
//! what was changed on the way. Rules are put together in halves, so that an
//! edit of one puts only its own path together anew, and callers after that.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use super::edit::Callers;
use super::effects::Effects;
use crate::addr::PortRange;
use crate::model::{NatKind, RejectWith, Rule, Text};
use crate::semantics::sets::{Doubt, Leaves};
use crate::space::{Cube, Mapping, Ref, Segments, OPEN};

/// What NAT is to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NatAction {
    /// Which end, and to what.
    pub kind: NatKind,
    /// The addresses, first and last; none: kept, or those the kind implies.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// The prefix that replaces one, host bits kept (NETMAP).
    pub netmap: Option<ipnet::IpNet>,
    /// The ports.
    pub ports: Option<PortRange>,
    /// The first port of the original range, where ports are shifted.
    pub base_port: Option<u16>,
    /// Whether the port is picked by chance.
    pub random: bool,
}

/// How a chain ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// At its last rule, undecided.
    Fall,
    /// By a return, undecided.
    Return,
    /// The packet goes on.
    Accept,
    /// It is dropped.
    Drop,
    /// It is rejected.
    Reject(RejectWith),
    /// It goes on, and this is its connection's NAT.
    Nat(NatAction),
}

/// A leaf of a chain's diagram.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Leaf {
    /// How the chain ends.
    pub end: End,
    /// The rule that decides, by its id; for a policy, the chain's.
    pub rule: Option<RuleId>,
    /// What was changed on the way.
    pub effects: Effects,
}

/// A rule of a table that stays the same when others come and go. Policies
/// have ids, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(pub u32);

/// Leaves of chains, shared among tables and hosts, so that equal tables are
/// one diagram.
#[derive(Debug, Default)]
pub struct ChainLeaves(Leaves<Leaf>);

impl ChainLeaves {
    pub(super) fn leaf(&mut self, leaf: Leaf) -> Ref {
        if leaf.end == End::Fall && leaf.effects.is_none() {
            return Ref::NONE;
        }
        let open = if leaf.end == End::Fall { OPEN } else { 0 };
        Ref::leaf(self.0.leaf(leaf).value().unwrap_or(0) + open)
    }

    /// What a leaf stands for; none for 0: the chain ends undecided.
    pub fn value(&self, leaf: u32) -> Option<&Leaf> {
        self.0.value(leaf & !OPEN)
    }
}

/// A chain of a table as a diagram.
#[derive(Debug, Default)]
pub(super) struct Compiled {
    pub segments: Segments,
    /// The ids of its rules, in order; empty while they are those it had at
    /// first.
    pub ids: Vec<RuleId>,
    /// Whether its rules are no longer those it had at first.
    pub edited: bool,
    /// Whether a rule may end it by a return.
    pub returns: bool,
    /// What callers see: returns have become falls.
    pub called: Ref,
    /// What is known of every packet that comes here, by its number in
    /// [`TableChains::contexts`]: its rules do not ask for it again.
    pub context: u32,
}

/// The diagrams of a table's chains.
#[derive(Debug, Default)]
pub struct TableChains {
    /// By chain; those that run before connection tracking apart.
    forms: [Vec<Option<Compiled>>; 2],
    pub(super) names: Arc<HashMap<Text, u32, foldhash::fast::RandomState>>,
    /// Why each oracle of these diagrams is one.
    pub oracles: Vec<Doubt>,
    /// For each chain the ids of its rules at first; later ones are appended.
    pub(super) first_ids: Vec<u32>,
    pub(super) next_id: u32,
    /// Rules put in later, and the chain each is of.
    pub(super) added: HashMap<RuleId, (usize, Rule), rustc_hash::FxBuildHasher>,
    /// Whether any base chain runs after connection tracking, and before it.
    pub(super) runs: [bool; 2],
    /// How many rules name each chain; 2 for two or more.
    pub(super) calls: Vec<u8>,
    /// For each chain the rules that may call it, by id; made for the first
    /// edit.
    pub(super) callers: Option<Callers>,
    pub(super) contexts: Vec<Cube>,
    /// What is known of every packet asked about.
    pub(super) known: Option<(Cube, Mapping)>,
    /// Rules of the chains that are being compiled.
    pub(super) parts: Vec<Ref>,
    /// The chains that are being compiled, the innermost last.
    pub(super) open: Vec<usize>,
}

impl TableChains {
    /// Chains for packets of which something is known: fields that no rule
    /// changes. Their diagrams ask for it nowhere, and mean nothing for other
    /// packets.
    pub fn within(cube: &Cube) -> Self {
        TableChains { known: Some((*cube, Mapping::from(cube))), ..TableChains::default() }
    }

    /// Chains of the same table, none compiled yet; for packets of a cube
    /// alone, if it asks anything.
    pub(super) fn again(&self, cube: &Cube) -> Self {
        TableChains {
            names: Arc::clone(&self.names),
            first_ids: self.first_ids.clone(),
            next_id: self.next_id,
            runs: self.runs,
            calls: self.calls.clone(),
            contexts: vec![*cube],
            known: (!cube.is_everything()).then(|| (*cube, Mapping::from(cube))),
            ..TableChains::default()
        }
    }

    /// The chain of that name, by its index in the table.
    pub(super) fn index(&self, name: &Text) -> Option<usize> {
        self.names.get(name).map(|index| *index as usize)
    }

    pub(super) fn compiled(&self, chain: usize, raw: bool) -> Option<&Compiled> {
        self.forms[usize::from(raw)].get(chain)?.as_ref()
    }

    pub(super) fn take(&mut self, chain: usize, raw: bool) -> Option<Compiled> {
        self.forms[usize::from(raw)].get_mut(chain)?.take()
    }

    pub(super) fn put(&mut self, chain: usize, raw: bool, compiled: Compiled) {
        let count = self.first_ids.len();
        let form = &mut self.forms[usize::from(raw)];
        form.resize_with(count, || None);
        if let Some(place) = form.get_mut(chain) {
            *place = Some(compiled);
        }
    }

    fn either(&self, chain: usize) -> Option<&Compiled> {
        self.compiled(chain, false).or_else(|| self.compiled(chain, true))
    }

    /// The id that the rule at a place of a chain had at first.
    pub(super) fn first_id(&self, chain: usize, place: usize) -> Option<RuleId> {
        self.first_ids.get(chain).map(|first| RuleId(first + 1 + place as u32))
    }

    /// Where a rule stood at first, if it was in this chain then.
    pub(super) fn place_at_first(&self, chain: usize, id: RuleId) -> Option<usize> {
        let first = self.first_ids.get(chain)?;
        id.0.checked_sub(first + 1).map(|place| place as usize)
    }

    /// The chain of a rule.
    pub(super) fn owner(&self, id: RuleId) -> Option<usize> {
        match self.added.get(&id) {
            Some((chain, _)) => Some(*chain),
            None => self.first_ids.partition_point(|first| *first <= id.0).checked_sub(1),
        }
    }

    /// Where a rule stands: its chain, and its number from 1; none for the
    /// policy.
    pub fn place(&self, id: RuleId) -> Option<(usize, Option<usize>)> {
        let chain = self.owner(id)?;
        let first = self.first_ids.get(chain)?;
        if *first == id.0 {
            return Some((chain, None));
        }
        let place = match self.either(chain).filter(|c| c.edited) {
            Some(compiled) => compiled.ids.iter().position(|other| *other == id)?,
            None => (id.0 - first) as usize - 1,
        };
        Some((chain, Some(place + 1)))
    }

    /// Every diagram held, for [`crate::space::Store::collect`].
    pub fn roots(&mut self) -> impl Iterator<Item = &mut Ref> {
        let compiled = self.forms.iter_mut().flatten().flatten();
        compiled.flat_map(|c| c.segments.roots().chain(std::iter::once(&mut c.called)))
    }

    /// A context's number.
    pub(super) fn context(&mut self, cube: Cube) -> u32 {
        self.contexts.push(cube);
        self.contexts.len() as u32 - 1
    }
}
