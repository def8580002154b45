//! Every probe of the recorded networks is in the computed set exactly when
//! the stepper says so, with the same header and the same deciding rule. Sets
//! are computed for whole entries first; packets are looked up after.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use lab_core::engine::symbolic::{Flowed, Sending, Symbolic};
use lab_core::model::{How, Probe};
use lab_core::query::predict::predict;
use lab_core::space::{header, Field, Ref};
use lab_core::{snapshot, Lab};
use lab_workspace::{compare, flows_of, networks, only, Entrance, Past};

/// Where a probe enters.
fn entrance<'a>(lab: &'a Lab, probe: &Probe) -> Entrance<'a> {
    let host = &lab.hosts[&probe.at];
    match &probe.how {
        How::Originate(_) if probe.packet.src.is_unspecified() => Entrance::Send(host, Sending::Socket),
        How::Originate(_) => Entrance::Send(host, Sending::Raw),
        How::Inject(iface, _) => Entrance::Inject(host, host.interface(iface).unwrap()),
    }
}

#[test]
fn every_recorded_probe_is_in_the_set_that_the_stepper_says() {
    let (mut probes, mut wrong) = (0, Vec::new());
    for case in networks() {
        let lab = Lab::open(&case).unwrap();
        let all = snapshot::read_probes(&case).unwrap();
        // Sets enter by no tagged frame and no bound socket.
        let plain = |p: &Probe| matches!(p.how, How::Originate(None) | How::Inject(_, None));
        let first = |p: &Probe| p.flow.is_none() && p.packet.quoted().is_none() && plain(p);
        let first: Vec<Probe> = all.into_iter().filter(first).collect();
        let mut engine = Symbolic::new(&lab);
        let mut known: BTreeMap<String, Vec<Flowed>> = BTreeMap::new();
        for (probe, prediction) in first.iter().zip(predict(&lab, &first)) {
            let p = &probe.packet;
            // Such packets are not spoken of.
            if p.src == p.dst {
                continue;
            }
            let chosen = matches!(probe.how, How::Originate(_)) && p.src.is_unspecified();
            let key = format!("{:?}", (&probe.at, &probe.how, p.ttl, p.length, p.mark, p.df, chosen));
            if !known.contains_key(&key) {
                let flows = entrance(&lab, probe).flows(&mut engine, p);
                let flows = flows.unwrap_or_else(|e| panic!("{} {}: {e}", lab.name, probe.id));
                known.insert(key.clone(), flows);
            }
            probes += 1;
            let here = flows_of(engine.store(), &known[&key], p, chosen).unwrap();
            if chosen && here.is_empty() {
                continue;
            }
            if let Err(why) = compare(&here, &prediction.ways) {
                wrong.push(format!("{} {}: {p}: {why}", case.display(), probe.id));
            }
        }
    }
    println!("{probes} probes");
    assert!(probes > 300);
    assert!(
        wrong.is_empty(),
        "{} wrong of {probes}\n{}",
        wrong.len(),
        wrong[..wrong.len().min(12)].join("\n")
    );
}

/// The probes of a flow are sent one after the other: later ones meet the
/// connections that earlier ones opened.
#[test]
fn every_later_probe_is_in_the_set_that_the_stepper_says() {
    let (mut probes, mut open, mut wrong) = (0, 0, Vec::new());
    for case in networks() {
        let lab = Lab::open(&case).unwrap();
        let all = snapshot::read_probes(&case).unwrap();
        let mut engine = Symbolic::new(&lab);
        for (at, (probe, prediction)) in all.iter().zip(predict(&lab, &all)).enumerate() {
            let Some(flow) = &probe.flow else { continue };
            let own = |p: &&Probe| p.id == *flow || p.flow.as_ref() == Some(flow);
            let earlier: Vec<&Probe> = all[..at].iter().filter(own).collect();
            let plain = |p: &&Probe| {
                let asked = matches!(p.how, How::Originate(None) | How::Inject(_, None));
                asked && p.packet.quoted().is_none() && p.packet.src != p.packet.dst
            };
            if !earlier.iter().copied().chain([probe]).all(|p| plain(&p)) {
                continue;
            }
            let protocol = header(&probe.packet).get(Field::Protocol);
            let mut pasts = vec![Past::default()];
            let mut told = true;
            for before in &earlier {
                let sent = header(&before.packet);
                let mut next = Vec::new();
                for past in &pasts {
                    let set = only(engine.store(), &sent).unwrap();
                    let flows =
                        entrance(&lab, before).flows_after(&mut engine, &before.packet, set, past).unwrap();
                    for flowed in flows.iter().filter(|f| engine.store().lookup(f.flow.set, &sent) != 0) {
                        match Past::of(flowed, &sent, protocol) {
                            Some(past) => next.push(past),
                            None => told = false,
                        }
                    }
                }
                pasts = next;
            }
            // A port that a kernel picked stands in no later header.
            if !told {
                open += 1;
                continue;
            }
            let mut flows = Vec::new();
            for past in &pasts {
                let (all, store) = (engine.headers().unwrap(), engine.store());
                let of_protocol = store.value(Field::Protocol, protocol).unwrap();
                let set = store.guard(of_protocol, all).unwrap();
                flows.extend(
                    entrance(&lab, probe).flows_after(&mut engine, &probe.packet, set, past).unwrap(),
                );
            }
            probes += 1;
            let here = flows_of(engine.store(), &flows, &probe.packet, false).unwrap();
            if let Err(why) = compare(&here, &prediction.ways) {
                wrong.push(format!("{} {}: {}: {why}", case.display(), probe.id, probe.packet));
            }
        }
    }
    println!("{probes} later probes, {open} after a port that a kernel picked");
    assert!(probes > 60, "{probes}");
    assert!(
        wrong.is_empty(),
        "{} wrong of {probes}\n{}",
        wrong.len(),
        wrong[..wrong.len().min(12)].join("\n")
    );
}

#[test]
fn nothing_is_in_no_set() {
    let lab = Lab::default();
    let mut engine = Symbolic::new(&lab);
    assert_ne!(engine.headers().unwrap(), Ref::NONE);
}
