//! The symbolic engine: every packet at once.
//!
//! A [`Flow`] is a set of packets that share one way so far, told by their
//! headers as they were sent; what has become of each field is data beside it.
//! Each stage of Linux splits flows by a diagram of what it does, and passes
//! the parts on, until every packet's way has [ended](Ending).
//!
//! Where chance or ignorance decides, a packet is in several flows; where
//! something is not modelled, the flow says so. The plain stepper
//! ([`super::stepper`]) is the specification; routes, NAT and matches are
//! written here on their own.

mod alike;
mod bridge;
mod chain;
mod compare;
mod compile;
mod device;
mod edit;
mod effects;
mod engine;
mod flow;
mod hook;
mod leave;
mod nat;
mod table;
mod target;
mod track;
mod tunnel;
mod walk;
mod way;

#[cfg(test)]
pub(crate) mod tests;

pub use chain::{ChainLeaves, End, Leaf, NatAction, RuleId, TableChains};
pub use compare::{Comparison, Differing, Version};
pub use compile::Compiler;
pub use effects::{Effects, Marking, Tracking};
pub use engine::{decides, Flowed, Symbolic};
pub use flow::{Carried, Connection, Ending, Ends, Flow, Inside, Now, Passed, Tracked};
pub use table::{Decided, TableDiagrams};
pub use walk::Sending;
