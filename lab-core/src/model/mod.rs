//! The lab as plain values: hosts, links, routes, rule sets, packets, outcomes.
//!
//! Nothing here knows files or engines. Fields are public and mean what their
//! doc comment says; enums are closed so that each engine must treat every
//! variant.

mod change;
mod device;
mod host;
mod interface;
mod ipset;
mod lab;
mod matches;
mod neighbour;
mod nft;
mod outcome;
mod packet;
mod probe;
mod provenance;
mod route;
mod ruleset;
mod sysctl;
mod target;
mod text;

pub use change::{Change, HostChange, RouteKey, TableId};
pub use device::{Bond, BridgeVlan, MacvlanMode, Tunnel, TunnelKind, VlanTag, Wireguard, WireguardPeer};
pub use host::{Host, HostKind, Part, Unmodelled};
pub use interface::{Address, Bridge, BridgePort, Interface, InterfaceKind, Scope, Vxlan};
pub use ipset::{Ipset, IpsetElement, IpsetField, IpsetItem};
pub use lab::{Endpoint, Lab, Link};
pub use matches::{
    AddressType, ConntrackMatch, ConntrackState, ConntrackStatus, Direction, InterfacePattern, Match, Not,
    NthMode, PacketType, PhysdevMatch, SetDirection, Statistic, TcpFlagsMatch,
};
pub use neighbour::{FdbEntry, Neighbour, NeighbourState};
pub use nft::{
    Atom, Comparison, Expression, FibResult, NftElement, NftMap, NftMatch, NftSet, NftSetRef, NftType,
};
pub use outcome::{Answer, AnswerKind, Decision, Hop, HopDirection, Outcome, Place, RuleRef, Stage};
pub use packet::{Frame, Packet, Payload, PortValue, TcpFlags, Transport};
pub use probe::{How, Probe};
pub use provenance::{Origin, Owner};
pub use route::{NextHop, PolicyAction, PolicyRule, Route, RouteKind, RouteTable};
pub use ruleset::{
    Backend, BaseChain, Chain, ChainKind, Hook, Policy, Rule, Ruleset, Statement, Table, TableFamily,
};
pub use sysctl::Sysctls;
pub use target::{
    Mangle, MarkOperation, NatAddress, NatKind, NatRange, RejectWith, Target, TtlOperation, Verdict,
};
pub use text::Text;
