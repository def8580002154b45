//! Every probe of the recorded networks is in the computed set exactly when
//! the stepper says so, with the same header and the same deciding rule. Sets
//! are computed for whole entries first; packets are looked up after.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};

use lab_core::engine::symbolic::{Ending, Flow, Flowed, Sending, Symbolic};
use lab_core::model::{How, Outcome, Packet, Probe};
use lab_core::query::predict::predict;
use lab_core::space::{header, Field, Header, Ref};
use lab_core::{snapshot, Lab};

fn cases() -> Vec<PathBuf> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded")];
    folders.extend(std::env::var_os("LAB_CASES").map(PathBuf::from));
    let mut cases: Vec<PathBuf> = folders
        .iter()
        .flat_map(|f| std::fs::read_dir(f).unwrap())
        .map(|e| e.unwrap().path())
        .filter(|p| p.join("probes.json").is_file())
        .collect();
    cases.sort();
    cases
}

/// What tells the flows of a probe: the host, how it sends, TTL, length, mark,
/// whether it may be fragmented, and whether the source is chosen.
type Sent = (String, String, u8, u32, u32, bool, bool);

/// The packets that a probe is one of: all with its TTL and length, sent the
/// same way.
fn computed<'a>(engine: &mut Symbolic<'a>, lab: &'a Lab, probe: &Probe) -> Vec<Flowed> {
    let host = &lab.hosts[&probe.at];
    let set = engine.headers().unwrap();
    let mut flow = Flow::new(set, probe.packet.ttl, probe.packet.length, probe.packet.mark);
    flow.now.df = probe.packet.df;
    match &probe.how {
        How::Originate if probe.packet.src.is_unspecified() => engine.send(host, flow, Sending::Socket),
        How::Originate => engine.send(host, flow, Sending::Raw),
        How::Inject(iface) => engine.inject(host, host.interface(iface).unwrap(), flow),
    }
    .unwrap_or_else(|e| panic!("{} {}: {e}", lab.name, probe.id))
}

/// What a field of the header is at the end.
fn value(source: lab_core::space::Source, sent: &Header) -> u128 {
    (sent.get(source.field) & !source.mask) | (source.value & source.mask)
}

fn agrees(flowed: &Flowed, outcome: &Outcome, sent: &Header) -> Result<(), String> {
    let seen = |flowed: &Flowed, seen: &Packet| -> Result<(), String> {
        let end = header(seen);
        let now = &flowed.flow.now;
        for (field, source) in [
            (Field::Src, now.ends.src),
            (Field::Dst, now.ends.dst),
            (Field::Sport, now.ends.sport),
            (Field::Dport, now.ends.dport),
            (Field::Tos, now.tos),
        ] {
            if source.field == Field::FreshPort && source.mask == 0 {
                continue;
            }
            let (ours, theirs) = (value(source, sent), end.get(field));
            let has = seen.transport.ports().is_some() || !matches!(field, Field::Sport | Field::Dport);
            if ours != theirs && has {
                return Err(format!("{field:?}: set {ours:x}, stepper {theirs:x}"));
            }
        }
        if (now.ttl, now.mark) != (seen.ttl, seen.mark) {
            return Err(format!("ttl {} mark {:x}, stepper {} {:x}", now.ttl, now.mark, seen.ttl, seen.mark));
        }
        Ok(())
    };
    match (&flowed.ending, outcome) {
        (Ending::Delivered(at), Outcome::Delivered { at: there, seen: packet }) if at.host == there.host => {
            seen(flowed, packet)
        }
        (Ending::ForwardedOut(at), Outcome::ForwardedOut { at: there, seen: packet }) if at == there => {
            seen(flowed, packet)
        }
        (Ending::Rejected(by) | Ending::Dropped(by), Outcome::Rejected { by: theirs, .. })
            if by == theirs =>
        {
            Ok(())
        }
        (Ending::Dropped(by) | Ending::Rejected(by), Outcome::Dropped { by: theirs }) => {
            let (ours, theirs) = (format!("{by:?}"), format!("{theirs:?}"));
            // Whether an answer about it got away is not asked of sets.
            let neighbour = ours.contains("HostUnreachable")
                && (theirs.contains("NeighbourFailed") || theirs.contains("AnswerLost"));
            if ours == theirs || neighbour {
                Ok(())
            } else {
                Err(format!("set says {ours}"))
            }
        }
        (ours, _) => Err(format!("set says {ours:?}")),
    }
}

#[test]
fn every_recorded_probe_is_in_the_set_that_the_stepper_says() {
    let (mut probes, mut wrong) = (0, Vec::new());
    for case in cases() {
        let lab = Lab::open(&case).unwrap();
        let all = snapshot::read_probes(&case).unwrap();
        let first: Vec<Probe> =
            all.into_iter().filter(|p| p.flow.is_none() && p.packet.quoted().is_none()).collect();
        let mut engine = Symbolic::new(&lab);
        let mut known: Vec<(Sent, Vec<Flowed>)> = Vec::new();
        for (probe, prediction) in first.iter().zip(predict(&lab, &first)) {
            let p = &probe.packet;
            if p.src == p.dst {
                continue;
            }
            let key = (
                probe.at.clone(),
                format!("{:?}", probe.how),
                p.ttl,
                p.length,
                p.mark,
                p.df,
                p.src.is_unspecified(),
            );
            if !known.iter().any(|(k, _)| *k == key) {
                let flows = computed(&mut engine, &lab, probe);
                known.push((key.clone(), flows));
            }
            let flows = &known.iter().find(|(k, _)| *k == key).unwrap().1;
            probes += 1;
            let mut sent = header(p);
            if p.src.is_unspecified() {
                let chosen = prediction.ways[0].hops().next().map(|h| h.packet.src);
                let Some(src) = chosen else { continue };
                sent = header(&Packet { src, ..p.clone() });
            }
            let here: Vec<&Flowed> =
                flows.iter().filter(|f| engine.store().lookup(f.flow.set, &sent) != 0).collect();
            let named = |what: String| format!("{} {}: {what}", case.display(), probe.id);
            if prediction.ways.iter().any(|w| !w.unknown.is_empty()) {
                if !here.iter().any(|f| !f.flow.unknown.is_empty()) {
                    wrong.push(named(format!(
                        "unknown to the stepper alone: {:?}",
                        prediction.ways[0].unknown
                    )));
                }
                continue;
            }
            if here.iter().any(|f| !f.flow.unknown.is_empty()) {
                wrong.push(named(format!("unknown to the sets alone: {:?}", here[0].flow.unknown)));
                continue;
            }
            for way in &prediction.ways {
                let tried: Vec<Result<(), String>> =
                    here.iter().map(|f| agrees(f, &way.outcome, &sent)).collect();
                if !tried.iter().any(Result::is_ok) {
                    wrong.push(named(format!("{p}: stepper {:?}\n    {tried:?}", way.outcome.decision())));
                }
            }
            if prediction.ways.len() == 1
                && here.iter().any(|f| agrees(f, &prediction.ways[0].outcome, &sent).is_err())
            {
                wrong.push(named("more ways than the stepper has".into()));
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

#[test]
fn nothing_is_in_no_set() {
    let lab = Lab::default();
    let mut engine = Symbolic::new(&lab);
    assert_ne!(engine.headers().unwrap(), Ref::NONE);
}
