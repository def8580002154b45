//! Predictions against what was observed in the bundled lab, and whether the
//! comparison would notice if they were wrong.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;

use lab_core::formats::observed::{Ending, Observed, ObservedIcmp};
use lab_core::query::observed::check;
use lab_core::{snapshot, Lab};
use lab_workspace::{ask, stage, Scratch, STAGES};

fn observed(name: &str) -> (Lab, Vec<Observed>) {
    let path = stage(name);
    (Lab::open(&path).unwrap(), snapshot::read_observed(&path).unwrap())
}

#[test]
fn every_stage_agrees_with_every_probe() {
    let (mut probes, mut certain) = (0, 0);
    for name in STAGES {
        let (lab, seen) = observed(name);
        let compared = check(&lab, &seen).unwrap();
        let wrong: Vec<_> = compared.iter().filter(|c| !c.disagreements.is_empty()).collect();
        assert!(wrong.is_empty(), "{name}: {wrong:#?}");
        probes += compared.len();
        certain += compared.iter().filter(|c| c.certain).count();
    }
    assert_eq!(probes, 697);
    assert!(certain * 100 >= probes * 85, "{certain} of {probes} certain");
}

#[test]
fn the_command_says_how_many_agree() {
    let run = ask("check", &stage("02-routes-only"), &["--observed"]);
    assert_eq!(run.out, "02-routes-only: 81 of 81 probes agree, 81 certain (100.0 %)\n");
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    let run = ask("check", &stage("02-routes-only"), &["--observed", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(value["schema"], "lab.check-observed/1");
    assert_eq!(value["labs"][0]["probes"].as_array().unwrap().len(), 81);
    let run =
        ask("check", &stage("02-routes-only"), &["--observed", stage("03-rules-inserted").to_str().unwrap()]);
    assert!(run.out.ends_with("all: 162 of 162 probes agree, 162 certain (100.0 %)\n"), "{}", run.out);
}

#[test]
fn a_wrong_observation_is_named_with_the_prediction() {
    let copy = Scratch::copy_of("03-rules-inserted");
    let text = copy.read("observed.json");
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let probes = value["probes"].as_array_mut().unwrap();
    let probe = probes.iter_mut().find(|p| p["from"] == "master" && p["to"] == "192.168.100.101").unwrap();
    probe["ttl"] = 61.into();
    copy.write("observed.json", value.to_string());
    let run = copy.ask("check", &["--observed"]);
    insta::assert_snapshot!(run.out, @r"
    probe 5: master -> 192.168.100.101 icmp
      ttl: observed 61, predicted 62
    03-rules-inserted: 80 of 81 probes agree, 81 certain (100.0 %)
    ");
    assert_eq!((run.code, run.err.as_str()), (1, ""));
}

/// One observation altered in one field: the field, and how.
type Flip = (String, Observed);

/// A host that is neither of these.
fn others<'a>(lab: &'a Lab, not: &'a Option<String>) -> impl Iterator<Item = String> + 'a {
    lab.hosts.keys().filter(move |h| Some(*h) != not.as_ref()).cloned()
}

fn flips(lab: &Lab, probe: &Observed) -> Vec<Flip> {
    let mut all: Vec<Flip> = Vec::new();
    let mut flip = |field: &str, alter: &dyn Fn(&mut Observed)| {
        let mut altered = probe.clone();
        alter(&mut altered);
        assert_ne!(altered, *probe, "{field}");
        all.push((field.to_owned(), altered));
    };
    for ending in [Ending::Reply, Ending::Refused, Ending::IcmpUnreachable, Ending::Timeout] {
        if ending != probe.outcome {
            flip(&format!("outcome to {ending:?}"), &|p| p.outcome = ending);
        }
    }
    let nobody = "198.51.100.77".parse().unwrap();
    match probe.ttl {
        Some(ttl) => {
            flip("ttl less", &|p| p.ttl = Some(ttl - 1));
            flip("ttl more", &|p| p.ttl = Some(ttl + 1));
            flip("ttl removed", &|p| p.ttl = None);
        }
        None => flip("ttl added", &|p| p.ttl = Some(64)),
    }
    match probe.icmp {
        Some(icmp) => {
            flip("icmp.type", &|p| p.icmp = Some(ObservedIcmp { kind: 11, ..icmp }));
            for code in (0..=13).filter(|c| *c != icmp.code) {
                flip(&format!("icmp.code to {code}"), &|p| p.icmp = Some(ObservedIcmp { code, ..icmp }));
            }
            flip("icmp.from", &|p| p.icmp = Some(ObservedIcmp { from: nobody, ..icmp }));
            flip("icmp removed", &|p| p.icmp = None);
        }
        None => {
            flip("icmp added", &|p| p.icmp = Some(ObservedIcmp { kind: 3, code: 3, from: probe.to }));
        }
    }
    match probe.icmp_ttl {
        Some(ttl) => {
            flip("icmp_ttl less", &|p| p.icmp_ttl = Some(ttl - 1));
            flip("icmp_ttl more", &|p| p.icmp_ttl = Some(ttl + 1));
            flip("icmp_ttl removed", &|p| p.icmp_ttl = None);
        }
        None => flip("icmp_ttl added", &|p| p.icmp_ttl = Some(64)),
    }
    flip("seen_src changed", &|p| p.seen_src = Some(nobody));
    if probe.seen_src.is_some() {
        flip("seen_src removed", &|p| p.seen_src = None);
    }
    for host in others(lab, &probe.served_by) {
        flip(&format!("served_by {host}"), &|p| p.served_by = Some(host.clone()));
    }
    if probe.served_by.is_some() {
        flip("served_by removed", &|p| p.served_by = None);
    }
    for host in others(lab, &probe.to_host) {
        flip(&format!("to_host {host}"), &|p| p.to_host = Some(host.clone()));
    }
    if probe.to_host.is_some() {
        flip("to_host removed", &|p| p.to_host = None);
    }
    for (host, interface) in lab.hosts.values().flat_map(|h| h.interfaces.iter().map(move |i| (h, i))) {
        let place = Some(format!("{}:{}", host.name, interface.name));
        if probe.outcome == Ending::Timeout && place != probe.last_seen {
            flip(&format!("last_seen {place:?}"), &|p| p.last_seen = place.clone());
        }
    }
    match &probe.last_seen {
        Some(_) => flip("last_seen removed", &|p| p.last_seen = None),
        None => flip("last_seen added", &|p| p.last_seen = Some("home-router:wan0".into())),
    }
    let hit = |host: &str, count| Some([(host.to_owned(), count)].into());
    let hits: BTreeSet<&String> = probe.libvirt_fwi_reject_hits.iter().flat_map(|h| h.keys()).collect();
    for host in lab.hosts.keys().filter(|h| !hits.contains(h)) {
        flip(&format!("hits of {host} added"), &|p| {
            p.libvirt_fwi_reject_hits.get_or_insert_default().insert(host.clone(), 1);
        });
    }
    for host in hits {
        flip("hits removed", &|p| p.libvirt_fwi_reject_hits = None);
        flip("hits more", &|p| p.libvirt_fwi_reject_hits = hit(host, 7));
        flip("hits are none", &|p| p.libvirt_fwi_reject_hits = hit(host, 0));
        flip("hits elsewhere", &|p| p.libvirt_fwi_reject_hits = hit("home-router", 1));
    }
    all
}

/// Whether an altered observation is as good as the first. Either coredns pod
/// may answer for their service; and no host's state says whether an address
/// that no rule mentions, with nobody there, is a service's.
fn as_good(field: &str, probe: &Observed, certain: bool) -> bool {
    let service = probe.to_host.as_deref().is_some_and(|host| host.starts_with("service:"));
    let twin = !certain && field.starts_with("served_by coredns-") && probe.seen_src.is_some();
    let unmentioned = field == "to_host removed" && probe.seen_src.is_none();
    service && (twin || unmentioned)
}

#[test]
fn every_altered_field_of_every_probe_is_caught() {
    let (mut tried, mut missed) = (0, Vec::new());
    for name in STAGES {
        let (lab, seen) = observed(name);
        for probe in &seen {
            let altered = flips(&lab, probe);
            tried += altered.len();
            let (names, altered): (Vec<String>, Vec<Observed>) = altered.into_iter().unzip();
            for (field, compared) in names.into_iter().zip(check(&lab, &altered).unwrap()) {
                if compared.disagreements.is_empty() && !as_good(&field, probe, compared.certain) {
                    missed.push(format!(
                        "{name}: probe {} ({}): {field}, certain: {}",
                        probe.id, compared.question, compared.certain
                    ));
                }
            }
        }
    }
    assert!(missed.is_empty(), "{} of {tried} pass unseen:\n{}", missed.len(), missed.join("\n"));
}
