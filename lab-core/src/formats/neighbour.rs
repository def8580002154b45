//! `ip -j neigh show`: the ARP and ND tables.

use std::net::IpAddr;

use serde_json::Value;

use super::json::{self, Object};
use super::Error;
use crate::model::{Neighbour, NeighbourState};

const STATES: [(&str, NeighbourState); 9] = [
    ("PERMANENT", NeighbourState::Permanent),
    ("NOARP", NeighbourState::Noarp),
    ("REACHABLE", NeighbourState::Reachable),
    ("STALE", NeighbourState::Stale),
    ("DELAY", NeighbourState::Delay),
    ("PROBE", NeighbourState::Probe),
    ("INCOMPLETE", NeighbourState::Incomplete),
    ("FAILED", NeighbourState::Failed),
    ("NONE", NeighbourState::None),
];

/// Reads the entries. On links that are not Ethernet-like, where the link
/// layer's address is an IP address, the entry has no MAC address.
///
/// # Errors
///
/// JSON that is broken, or a field that is missing or of the wrong sort.
pub fn parse(file: &str, text: &str) -> Result<Vec<Neighbour>, Error> {
    let mut neighbours = Vec::new();
    for mut entry in json::objects(file, text)? {
        let address = match entry.parsed("dst", "an address")? {
            Some(address) => address,
            None => return Err(entry.missing("dst")),
        };
        let interface = entry.required("dev")?;
        let mac = match entry.string("lladdr")? {
            None => None,
            Some(word) => match word.parse() {
                Ok(mac) => Some(mac),
                Err(_) if word.parse::<IpAddr>().is_ok() => None,
                Err(_) => return Err(entry.wrong("lladdr", &Value::from(word), "a MAC address")),
            },
        };
        let mut state = NeighbourState::None;
        if let Some(word) = entry.strings("state")?.into_iter().next() {
            state = match STATES.iter().find(|(name, _)| *name == word) {
                Some((_, state)) => *state,
                None => return Err(entry.wrong("state", &Value::from(word), "a neighbour state")),
            };
        }
        let proxy = entry.flag("proxy")?;
        neighbours.push(Neighbour { address, interface, mac, state, proxy });
    }
    Ok(neighbours)
}

/// Prints the entries, one a line.
pub fn print(neighbours: &[Neighbour]) -> String {
    json::array(neighbours.iter().map(|entry| {
        let mut object = Object::default();
        object.set("dst", entry.address.to_string());
        object.set("dev", entry.interface.clone());
        object.show("lladdr", entry.mac);
        if entry.proxy {
            object.set("proxy", Value::Null);
        }
        let state: Vec<&str> = STATES
            .iter()
            .filter(|(_, state)| *state == entry.state && entry.state != NeighbourState::None)
            .map(|(name, _)| *name)
            .collect();
        object.set("state", state);
        Value::Object(object.0)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"[{"dst":"10.2.7.2","dev":"eth0","lladdr":"02:5b:00:00:00:07","state":["REACHABLE"]},
{"dst":"fe80::1","dev":"eth0","state":["FAILED"]},
{"dst":"10.9.9.9","dev":"eth1","proxy":null,"state":[]}]
"#;

    #[test]
    fn reads_and_prints() {
        let entries = parse("neigh.json", TEXT).unwrap();
        assert_eq!(entries.len(), 3);
        assert_eq!(entries[0].mac.unwrap().to_string(), "02:5b:00:00:00:07");
        assert_eq!((entries[1].mac, entries[1].state), (None, NeighbourState::Failed));
        assert!(entries[2].proxy);
        assert_eq!(print(&entries), TEXT);
    }

    #[test]
    fn damage_is_named() {
        let message = |text: &str| parse("neigh.json", text).unwrap_err().to_string();
        assert_eq!(
            message(r#"[{"dst":"10.2.7","dev":"eth0"}]"#),
            "neigh.json:1: bad value: `dst` is not an address: `\"dst\":\"10.2.7\"`"
        );
        assert_eq!(
            message(&TEXT.replace("REACHABLE", "HAPPY")),
            "neigh.json:1: bad value: `state` is not a neighbour state: `\"state\":\"HAPPY\"`"
        );
    }
}
