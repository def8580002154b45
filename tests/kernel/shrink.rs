//! Makes a lab that disagrees smaller, and keeps it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lab_core::model::{How, Lab, Packet, PortValue, Probe, Transport};
use serde_json::{json, Map, Value};

use crate::run;

/// How long one disagreement is made smaller.
const TIME: Duration = Duration::from_secs(25);

/// Every lab that has one thing less, the biggest things first.
fn smaller(lab: &Lab) -> Vec<Lab> {
    let mut all = Vec::new();
    let mut change = |host: &str, with: &mut dyn FnMut(&mut lab_core::model::Host)| {
        let mut lab = lab.clone();
        if let Some(host) = lab.host_mut(host) {
            with(host);
        }
        all.push(lab);
    };
    for host in lab.hosts.values() {
        for table in 0..host.ruleset.tables.len() {
            change(&host.name, &mut |h| drop(h.ruleset.tables.remove(table)));
        }
    }
    for host in lab.hosts.values() {
        let policies = host.rules.iter().any(|r| ![0, 32766, 32767].contains(&r.priority));
        if policies {
            change(&host.name, &mut |h| h.rules.retain(|r| [0, 32766, 32767].contains(&r.priority)));
        }
        for (t, table) in host.ruleset.tables.iter().enumerate() {
            for (c, chain) in table.chains.iter().enumerate() {
                for rule in 0..chain.rules.len() {
                    change(&host.name, &mut |h| drop(h.ruleset.tables[t].chains[c].rules.remove(rule)));
                }
                if chain.base.is_some() && !table.xtables && chain.rules.is_empty() {
                    change(&host.name, &mut |h| drop(h.ruleset.tables[t].chains.remove(c)));
                }
            }
        }
        for (place, route) in host.routes.iter().enumerate() {
            if route.protocol != "kernel" {
                change(&host.name, &mut |h| drop(h.routes.remove(place)));
            }
        }
        for (place, rule) in host.rules.iter().enumerate() {
            if ![0, 32766, 32767].contains(&rule.priority) {
                change(&host.name, &mut |h| drop(h.rules.remove(place)));
            }
        }
        for key in host.sysctls.0.keys() {
            change(&host.name, &mut |h| drop(h.sysctls.0.remove(key)));
        }
    }
    all
}

/// The smallest lab found that still disagrees, and how it does.
pub fn shrink(lab: &Lab, probes: &[Probe], why: String) -> (Lab, String) {
    let start = Instant::now();
    let (mut best, mut why) = (lab.clone(), why);
    'again: loop {
        for lab in smaller(&best) {
            if start.elapsed() > TIME {
                return (best, why);
            }
            if let Some(found) = run::again(&lab, probes, None) {
                (best, why) = (lab, found);
                continue 'again;
            }
        }
        return (best, why);
    }
}

fn packet(p: &Packet) -> Value {
    let mut object = Map::new();
    let mut set = |key: &str, value: Value| drop(object.insert(key.to_owned(), value));
    set("family", json!(if p.dst.is_ipv4() { "ipv4" } else { "ipv6" }));
    set("src", json!(p.src));
    set("dst", json!(p.dst));
    set("proto", json!(p.transport.protocol()));
    set("ttl", json!(p.ttl));
    set("tos", json!(p.tos));
    set("df", json!(p.df));
    let number = |port: PortValue| json!(port.known().unwrap_or(0));
    if let Some((sport, dport)) = p.transport.ports() {
        set("sport", number(sport));
        set("dport", number(dport));
    }
    match p.transport {
        Transport::Tcp { flags, .. } => set("tcp_flags", json!(flags.to_string())),
        Transport::Icmp { kind, code, id } | Transport::Icmp6 { kind, code, id } => {
            set("icmp_type", json!(kind));
            set("icmp_code", json!(code));
            set("icmp_id", number(id));
        }
        _ => {}
    }
    let ip = if p.dst.is_ipv4() { 20 } else { 40 };
    let header = ip + lab_core::formats::probes::transport_header(&p.transport);
    set("payload_len", json!(p.length.saturating_sub(header)));
    Value::Object(object)
}

/// Probes as `probes.json` has them.
fn written(probes: &[Probe]) -> String {
    let all: Vec<String> = probes
        .iter()
        .map(|probe| {
            let mut object = json!({ "id": probe.id, "at": probe.at, "packet": packet(&probe.packet) });
            match &probe.how {
                How::Originate(bind) => {
                    object["how"] = json!("originate");
                    if let Some(device) = bind {
                        object["bind"] = json!(device);
                    }
                }
                How::Inject(iface, tag) => {
                    object["how"] = json!("inject");
                    object["iface"] = json!(iface);
                    if let Some(tag) = tag {
                        object["vlan"] = json!(tag);
                    }
                }
            }
            if let Some(flow) = &probe.flow {
                object["flow"] = json!(flow);
            }
            object.to_string()
        })
        .collect();
    format!("[\n{}\n]\n", all.join(",\n"))
}

/// Keeps a lab that disagrees as a snapshot with its probes.
pub fn keep(lab: &Lab, probes: &[Probe], name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(name);
    let _ = fs::remove_dir_all(&folder);
    run::again(lab, probes, Some(&folder));
    write(&folder, probes);
    folder
}

pub fn write(folder: &Path, probes: &[Probe]) {
    fs::write(folder.join("probes.json"), written(probes)).expect("the temporary folder can be written to");
}
