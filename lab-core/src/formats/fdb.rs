//! `bridge -j fdb show`: forwarding tables of bridges and VXLAN devices.

use serde_json::Value;

use super::json::{self, Object};
use super::Error;
use crate::model::{FdbEntry, Origin, Unmodelled};

/// Reads the entries. On an entry of a VXLAN device (one with a destination)
/// the states `permanent` and `static` both mean that it was set by hand.
///
/// # Errors
///
/// JSON that is broken, or a field that is missing or of the wrong sort.
pub fn parse(file: &str, text: &str) -> Result<(Vec<FdbEntry>, Vec<Unmodelled>), Error> {
    let (mut entries, mut unmodelled) = (Vec::new(), Vec::new());
    for mut entry in json::objects(file, text)? {
        for key in ["nhid", "viaIf", "via", "src_vni"] {
            if let Some(value) = entry.take(key) {
                let text = format!("{} {key} {value}", Value::Object(entry.map.clone()));
                let origin = Origin { file: file.into(), line: entry.line };
                unmodelled.push(Unmodelled { origin, what: format!("fdb {key}"), text });
            }
        }
        let mac = match entry.parsed("mac", "a MAC address")? {
            Some(mac) => mac,
            None => return Err(entry.missing("mac")),
        };
        let interface = entry.required("ifname")?;
        let destination = entry.parsed("dst", "an address")?;
        let state = entry.word("state")?.unwrap_or_default();
        let fixed = state == "static" || (state == "permanent" && destination.is_some());
        entries.push(FdbEntry {
            mac,
            interface,
            master: entry.string("master")?,
            destination,
            port: entry.number("port")?,
            vni: entry.number("vni")?,
            vlan: entry.number("vlan")?,
            local: state == "permanent" && destination.is_none(),
            fixed,
        });
    }
    Ok((entries, unmodelled))
}

/// Prints the entries, one a line.
pub fn print(entries: &[FdbEntry]) -> String {
    json::array(entries.iter().map(|entry| {
        let mut object = Object::default();
        object.set("mac", entry.mac.to_string());
        object.set("ifname", entry.interface.clone());
        object.show("dst", entry.destination);
        object.count("port", entry.port);
        object.count("vni", entry.vni);
        object.count("vlan", entry.vlan);
        let flags: &[&str] = if entry.master.is_some() { &[] } else { &["self"] };
        object.set("flags", flags.to_vec());
        object.show("master", entry.master.as_ref());
        let state = match (entry.local, entry.fixed, entry.destination) {
            (true, _, _) | (_, true, Some(_)) => "permanent",
            (_, true, None) => "static",
            _ => "",
        };
        object.set("state", state);
        Value::Object(object.0)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"[{"mac":"33:33:00:00:00:01","ifname":"eth0","flags":["self"],"state":"permanent"},
{"mac":"02:5b:00:00:00:09","ifname":"tap0","vlan":1,"flags":[],"master":"br0","state":"static"},
{"mac":"00:00:00:00:00:00","ifname":"vx0","dst":"172.27.238.2","flags":["self"],"state":"permanent"}]
"#;

    #[test]
    fn reads_and_prints() {
        let (entries, unmodelled) = parse("fdb.json", TEXT).unwrap();
        assert!(unmodelled.is_empty());
        assert!(entries[0].local && !entries[0].fixed);
        assert!(
            entries[1].fixed && entries[1].vlan == Some(1) && entries[1].master.as_deref() == Some("br0")
        );
        assert!(entries[2].fixed && !entries[2].local && entries[2].destination.is_some());
        assert_eq!(print(&entries), TEXT);
    }

    #[test]
    fn next_hop_groups_are_not_modelled() {
        let text = r#"[{"mac":"00:00:00:00:00:00","ifname":"vx0","nhid":10,"state":""}]"#;
        assert_eq!(parse("fdb.json", text).unwrap().1[0].what, "fdb nhid");
    }

    #[test]
    fn damage_is_named() {
        assert_eq!(
            parse("fdb.json", &TEXT.replace("02:5b", "02:5g")).unwrap_err().to_string(),
            "fdb.json:2: bad value: `mac` is not a MAC address: `\"mac\":\"02:5g:00:00:00:09\"`"
        );
    }
}
