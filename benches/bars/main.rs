//! The speeds we hold ourselves to, side by side in one run: what was done,
//! what it cost, what it may cost. A result is checked before its time counts.
//!
//! `cargo bench --bench bars [NAME]`. Public data is read from the folder that
//! `LAB_DATA` names; generators stand in without it.

mod differences;
mod fib_data;
mod forwarding;
mod hypervisors;
mod kube;
mod kube_proxy;
mod service_matrix;
mod table;
mod tuples;

use table::Row;

/// A group of rows by the name that selects it.
type Group = (&'static str, fn() -> Vec<Row>);

const GROUPS: [Group; 5] = [
    ("kube", kube::rows),
    ("forwarding", forwarding::rows),
    ("hypervisors", hypervisors::rows),
    ("service_matrix", service_matrix::rows),
    ("differences", differences::rows),
];

fn main() {
    if let Some(services) = std::env::args().find_map(|a| a.strip_prefix(kube::ALONE).map(str::to_owned)) {
        return kube::alone(&services);
    }
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    for (name, rows) in GROUPS {
        if wanted.is_empty() || wanted.iter().any(|w| name.contains(w.as_str())) {
            for row in rows() {
                println!("{row}");
            }
        }
    }
}
