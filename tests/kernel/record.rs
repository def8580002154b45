//! Labs whose packets all went as predicted, kept to be asked again without a
//! kernel (`tests/agreed.rs`).

use std::fs;
use std::path::Path;

use lab_core::model::Probe;
use lab_core::query::predict::predict;
use lab_core::{snapshot, Lab};
use lab_workspace::{copy, predicted};

use crate::shrink;

/// Keeps a snapshot with its probes and what is predicted of them.
pub fn record(captured: &Path, probes: &[Probe], to: &Path) {
    fs::create_dir_all(to).expect("the folder of recordings can be written to");
    copy(captured, to);
    shrink::write(to, probes);
    let lab = Lab::open(to).expect("a copy of a snapshot that was read");
    let probes = snapshot::read_probes(to).expect("probes that were just written");
    let text = predicted(&predict(&lab, &probes));
    fs::write(to.join("predicted.txt"), text).expect("the folder of recordings can be written to");
}
