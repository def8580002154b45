//! One packet in one base chain, met there and nowhere else.

use std::collections::BTreeMap;

use super::hook::Ends;
use super::skb::Skb;
use super::{Origin, Walk, World};
use crate::engine::explore::Choices;
use crate::engine::journey::{Event, RuleStep};
use crate::model::{Chain, Hook, Host, Lab, Packet, Table};
use crate::semantics::conntrack::Info;

/// A packet where a hook meets it.
#[derive(Clone, Debug, PartialEq)]
pub struct Met {
    /// The packet.
    pub packet: Packet,
    /// The interface it came in by.
    pub input: Option<String>,
    /// The interface it leaves by.
    pub output: Option<String>,
    /// What it is to its connection.
    pub info: Info,
}

/// The rules of a base chain that a packet matches, in order, and what each
/// does. Of its connection only the state is known.
pub fn meet(host: &Host, table: &Table, base: &Chain, met: &Met) -> Vec<RuleStep> {
    let lab = Lab { hosts: BTreeMap::new(), ..Lab::default() };
    let (mut world, mut choices) = (World::default(), Choices::default());
    let mut walk = Walk::new(&lab, &mut world, &mut choices, Origin::Host(host.name.clone()), false);
    let hook = base.base.map_or(Hook::Forward, |b| b.hook);
    let mut skb = Skb::new(met.packet.clone());
    skb.info = met.info;
    let ends = Ends { input: met.input.as_deref(), output: met.output.as_deref(), next_hop: None };
    walk.chain(host, hook, ends, &mut skb, table, base);
    match walk.events.pop() {
        Some(Event::Chain(run)) => run.steps,
        _ => Vec::new(),
    }
}
