//! lab-core answers questions about a Linux network before anyone touches it:
//! which packets get from where to where, what they look like when they
//! arrive, and which rule decided.
//!
//! Rooms, from the bottom up; each uses only those above it:
//!
//! - [`addr`]: addresses and sets of them
//! - [`model`]: the lab as plain values
//! - [`formats`]: text to model and back
//! - [`space`]: sets of packets
//! - [`semantics`]: what Linux does, stage by stage
//! - [`engine`]: interpreters of the semantics
//! - [`query`]: the questions
//! - [`render`]: answers as text and JSON
//! - [`snapshot`]: a lab folder on disk
//!
//! With feature `proptest`, `strategies` makes random packets, rules and labs.

pub mod addr;
#[cfg(feature = "cli")]
pub mod cli;
pub mod engine;
pub mod formats;
pub mod model;
pub mod query;
pub mod render;
pub mod semantics;
pub mod snapshot;
pub mod space;
#[cfg(feature = "proptest")]
pub mod strategies;

pub use model::Lab;

impl Lab {
    /// Reads the lab in a snapshot folder.
    ///
    /// ```no_run
    /// use lab_core::Lab;
    /// let lab = Lab::open("examples/openstack-k8s/02-routes-only")?;
    /// assert!(lab.hosts.contains_key("master"));
    /// # Ok::<(), lab_core::snapshot::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`snapshot::open`].
    pub fn open(path: impl AsRef<std::path::Path>) -> Result<Self, snapshot::Error> {
        snapshot::open(path.as_ref())
    }
}
