//! What was done and seen, in all.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lab_core::model::{InterfaceKind, Lab};
use lab_core::query::predict::Prediction;

use crate::compare::claims;
use crate::watch::Observed;

/// What was left out of labs, and why.
#[derive(Default)]
pub struct Left {
    reasons: BTreeMap<String, (u64, String)>,
}

impl Left {
    /// Counts something that a tool refused; one example is kept.
    pub fn count(&mut self, tool: &str, what: &str) {
        let entry = self.reasons.entry(tool.to_owned()).or_insert_with(|| (0, what.to_owned()));
        entry.0 += 1;
        if std::env::var_os("LAB_KERNEL_LEFT").is_some() {
            println!("left out: {tool}: {what}");
        }
    }
}

/// The kinds of device that a packet passed, but for plain ones.
fn kinds(lab: &Lab, observed: &Observed) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for hop in &observed.hops {
        let Some(host) = lab.host(&hop.at.host) else { continue };
        let Some(device) = host.interface(&hop.at.iface) else { continue };
        match &device.kind {
            InterfaceKind::Loopback | InterfaceKind::Veth => {}
            InterfaceKind::Vlan(tag) if tag.service => drop(found.insert("vlan 802.1ad".to_owned())),
            InterfaceKind::Bond(bond) => drop(found.insert(format!("bond {}", bond.mode))),
            InterfaceKind::Macvlan(mode) => drop(found.insert(format!("macvlan {mode}"))),
            kind => drop(found.insert(kind.to_string())),
        }
        if host.vrf_of(&device.name).is_some() {
            found.insert("vrf".to_owned());
        }
        let bridge = device.master.as_deref().and_then(|m| host.interface(m)).map(|m| &m.kind);
        if matches!(bridge, Some(InterfaceKind::Bridge(settings)) if settings.vlan_filtering) {
            found.insert("bridge that filters VLANs".to_owned());
        }
    }
    found
}

/// The sums of a run.
#[derive(Default)]
pub struct Tally {
    pub labs: u64,
    pub rules: u64,
    pub skipped: BTreeMap<String, u64>,
    pub left: Left,
    pub packets: u64,
    pub replies: u64,
    pub outcomes: BTreeMap<&'static str, u64>,
    pub crossed: u64,
    /// Packets that passed a device of a kind.
    pub kinds: BTreeMap<String, u64>,
    pub certain: u64,
    pub possible: u64,
    pub unclaimed: u64,
    pub sets: u64,
    pub repeated: u64,
    pub drawing: Duration,
    pub building: Duration,
    pub capturing: Duration,
    pub sending: Duration,
    pub predicting: Duration,
}

impl Tally {
    /// Adds what another worker did.
    pub fn add(&mut self, other: Tally) {
        for (key, n) in other.skipped {
            *self.skipped.entry(key).or_default() += n;
        }
        for (key, n) in other.outcomes {
            *self.outcomes.entry(key).or_default() += n;
        }
        for (tool, (n, example)) in other.left.reasons {
            self.left.reasons.entry(tool).or_insert((0, example)).0 += n;
        }
        for (kind, n) in other.kinds {
            *self.kinds.entry(kind).or_default() += n;
        }
        self.labs += other.labs;
        self.rules += other.rules;
        self.packets += other.packets;
        self.replies += other.replies;
        self.crossed += other.crossed;
        self.certain += other.certain;
        self.possible += other.possible;
        self.unclaimed += other.unclaimed;
        self.sets += other.sets;
        self.repeated += other.repeated;
        self.drawing += other.drawing;
        self.building += other.building;
        self.capturing += other.capturing;
        self.sending += other.sending;
        self.predicting += other.predicting;
    }

    /// Counts a packet.
    pub fn packet(&mut self, lab: &Lab, observed: &Observed, prediction: &Prediction) {
        self.packets += 1;
        *self.outcomes.entry(observed.name()).or_default() += 1;
        self.crossed += u64::from(observed.crossed(lab));
        for kind in kinds(lab, observed) {
            *self.kinds.entry(kind).or_default() += 1;
        }
        if !claims(prediction) {
            self.unclaimed += 1;
        } else if prediction.certain() {
            self.certain += 1;
        } else {
            self.possible += 1;
        }
    }

    /// The share of packets that arrived or left.
    pub fn arrived(&self) -> f64 {
        let of = |name: &str| self.outcomes.get(name).copied().unwrap_or(0);
        (of("delivered") + of("forwarded-out")) as f64 / self.packets.max(1) as f64
    }

    /// Prints it.
    pub fn print(&self, seed: u64, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        println!(
            "seed {seed}: {} labs, {} packets ({} replies) in {seconds:.0} s, {:.0} packets a second",
            self.labs,
            self.packets,
            self.replies,
            self.packets as f64 / seconds
        );
        let share = |n: u64| 100.0 * n as f64 / self.packets.max(1) as f64;
        let outcomes: Vec<String> =
            self.outcomes.iter().map(|(name, n)| format!("{name} {n} ({:.0} %)", share(*n))).collect();
        println!(
            "outcomes: {}; {} ({:.0} %) crossed a forwarding host",
            outcomes.join(", "),
            self.crossed,
            share(self.crossed)
        );
        let kinds: Vec<String> = self.kinds.iter().map(|(kind, n)| format!("{kind} {n}")).collect();
        println!("packets that passed devices: {}", kinds.join(", "));
        println!(
            "predictions: {} certain, {} possible, {} claim nothing; {} held to the sets; {} sent again with patience",
            self.certain, self.possible, self.unclaimed, self.sets, self.repeated
        );
        println!(
            "{} rules loaded; drawing {:?}, building {:?}, capturing {:?}, sending {:?}, predicting {:?}",
            self.rules, self.drawing, self.building, self.capturing, self.sending, self.predicting
        );
        for (why, n) in &self.skipped {
            println!("labs left out: {n}: {why}");
        }
        for (tool, (n, example)) in &self.left.reasons {
            println!("left out by {tool}: {n}, such as {example}");
        }
    }
}
