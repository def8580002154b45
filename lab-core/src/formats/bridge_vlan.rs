//! `bridge -j vlan show`: the VLANs of bridges and their ports.

use std::collections::BTreeMap;

use serde_json::Value;

use super::json::{self, Object};
use super::Error;
use crate::model::{BridgeVlan, Origin, Unmodelled};

/// The VLANs of each device, by its name.
pub type Vlans = BTreeMap<String, Vec<BridgeVlan>>;

/// Settings of a VLAN that change nothing for single packets.
const HARMLESS: [&str; 2] = ["mcast_router", "mcast_max_groups"];

/// Reads the VLANs of each device, by its name, and what of them is not
/// modelled.
///
/// # Errors
///
/// JSON that is broken, or a field that is missing or of the wrong sort.
pub fn parse(file: &str, text: &str) -> Result<(Vlans, Vec<Unmodelled>), Error> {
    let (mut devices, mut unmodelled) = (Vlans::new(), Vec::new());
    for mut device in json::objects(file, text)? {
        let vlans = devices.entry(device.required("ifname")?).or_default();
        for mut entry in device.objects("vlans")?.unwrap_or_default() {
            let Some(first) = entry.number::<u16>("vlan")? else { return Err(entry.missing("vlan")) };
            let last = entry.number("vlanEnd")?.unwrap_or(first);
            let flags = entry.strings("flags")?;
            let has = |flag: &str| flags.iter().any(|f| f == flag);
            let (pvid, untagged) = (has("PVID"), has("Egress Untagged"));
            if last >= 4096 {
                return Err(entry.wrong("vlan", &Value::from(last), "a VLAN"));
            }
            for (key, value) in &entry.map {
                let usual = (key == "state" && value == "forwarding") || *value == Value::Bool(false);
                if !usual && !HARMLESS.contains(&key.as_str()) {
                    let origin = Origin { file: file.into(), line: entry.line };
                    let text = format!("VLAN {first} {key} {value}");
                    unmodelled.push(Unmodelled { origin, what: "VLAN setting of a port".into(), text });
                }
            }
            vlans.extend((first..=last).map(|id| BridgeVlan { id, pvid, untagged }));
        }
    }
    Ok((devices, unmodelled))
}

/// Prints the VLANs of devices, one device a line.
pub fn print<'a>(devices: impl IntoIterator<Item = (&'a str, &'a [BridgeVlan])>) -> String {
    json::array(devices.into_iter().map(|(name, vlans)| {
        let entries: Vec<Value> = vlans
            .iter()
            .map(|vlan| {
                let mut entry = Object::default();
                entry.set("vlan", vlan.id);
                let flags = [("PVID", vlan.pvid), ("Egress Untagged", vlan.untagged)];
                let set: Vec<&str> = flags.iter().filter(|(_, on)| *on).map(|(flag, _)| *flag).collect();
                if !set.is_empty() {
                    entry.set("flags", set);
                }
                Value::Object(entry.0)
            })
            .collect();
        let mut device = Object::default();
        device.set("ifname", name);
        device.set("vlans", entries);
        Value::Object(device.0)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "[{\"ifname\":\"br0\",\"vlans\":[{\"vlan\":1,\"flags\":[\"PVID\",\"Egress Untagged\"]}]},\n\
        {\"ifname\":\"tap0\",\"vlans\":[{\"vlan\":30},{\"vlan\":200,\"flags\":[\"PVID\"]}]}]\n";

    #[test]
    fn reads_and_prints() {
        let (devices, unmodelled) = parse("bridge-vlan.json", TEXT).unwrap();
        assert!(unmodelled.is_empty());
        assert_eq!(devices["tap0"][0], BridgeVlan { id: 30, pvid: false, untagged: false });
        assert_eq!(devices["tap0"][1], BridgeVlan { id: 200, pvid: true, untagged: false });
        assert_eq!(print(devices.iter().map(|(name, vlans)| (name.as_str(), vlans.as_slice()))), TEXT);
        let text = r#"[{"ifname":"p","vlans":[{"vlan":2,"vlanEnd":4,"state":"blocking"}]},{"ifname":"q"}]"#;
        let (range, unmodelled) = parse("f", text).unwrap();
        assert_eq!(unmodelled[0].text, "VLAN 2 state \"blocking\"");
        assert_eq!(range["p"].iter().map(|v| v.id).collect::<Vec<_>>(), [2, 3, 4]);
        assert!(range["q"].is_empty());
    }

    #[test]
    fn damage_is_named() {
        let message = parse("f", r#"[{"ifname":"p","vlans":[{"vlan":70000}]}]"#).unwrap_err().to_string();
        assert!(message.starts_with("f:1: bad value: `vlan` is not a number in range"), "{message}");
        assert!(parse("f", r#"[{"ifname":"p","vlans":[{"vlan":1,"vlanEnd":60000}]}]"#).is_err());
    }
}
