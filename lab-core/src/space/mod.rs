//! Sets of packets as decision diagrams.
//!
//! [`PacketSet`] is the type for users: a set of packets with union,
//! intersection, difference, membership, count, an example, and a readable
//! cover. [`Store`] is what engines build with: diagrams over the bits of
//! every [`Field`], whose leaves may be more than yes and no.
//!
//! | operation | cost |
//! |---|---|
//! | membership, look-up | one step for each test on the way: at most the number of bits, in practice tens |
//! | union, intersection, difference | at most the product of the sizes; what only one side tests is not visited |
//! | equality, emptiness | constant |
//! | count, example | the size of the diagram |
//! | merging n rules in halves | O(n log n) where each rule tests one address |
//! | an edit of one of n rules | O(log n) merges, each along one path |

mod build;
mod count;
mod cover;
mod cube;
mod editor;
mod field;
mod map;
mod names;
mod operate;
mod sequence;
mod set;
mod situation;
mod spans;
mod store;

#[cfg(test)]
mod tests;

pub use build::Bits;
pub use cover::Line;
pub use cube::{Cube, NotAdded};
pub use editor::Segments;
pub use field::{ct, is_oracle, oracle, tracking, Field, Header, WORDS};
pub use map::{Mapping, Source};
pub use names::Names;
pub use sequence::OPEN;
pub(crate) use set::packet as packet_of_header;
pub use set::{header, PacketSet, Space};
pub use situation::{Condition, Situation};
pub use store::{Ref, Store};

/// Why an operation on packet sets did not end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The diagrams outgrew what they may use.
    #[error("packet sets need more than the {nodes} nodes they may use")]
    Budget {
        /// How many nodes there may be.
        nodes: usize,
    },
    /// A diagram has more tests below one another than an operation follows.
    #[error("a packet set depends on too many conditions at once")]
    Depth,
    /// What was asked falls into more parts than are followed.
    #[error("the packets fall into more than {most} parts")]
    Parts {
        /// How many parts there may be.
        most: usize,
    },
    /// A chain would call itself.
    #[error("a chain would call itself")]
    Loop,
    /// Two sets of different spaces.
    #[error("the packet sets belong to different spaces")]
    Foreign,
    /// What should be a packet set's serialised form is none.
    #[error("not a packet set: {0}")]
    Malformed(String),
}
