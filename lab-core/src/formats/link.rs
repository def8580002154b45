//! `ip -d -j link show`: the interfaces.

use std::net::IpAddr;

use serde_json::Value;

use super::json::{self, Fields, Object};
use super::{device, Error};
use crate::model::{
    Bridge, BridgePort, Interface, InterfaceKind, Origin, TunnelKind, Unmodelled, Vxlan, Wireguard,
};

/// The UDP port of a VXLAN device that names none.
const VXLAN_PORT: u16 = 8472;

/// Fields of a VXLAN device that do not decide where a packet goes.
const VXLAN_HARMLESS: [&str; 13] = [
    "ageing",
    "port_range",
    "udp_csum",
    "udp_zero_csum6_tx",
    "udp_zero_csum6_rx",
    "tos",
    "label",
    "label_policy",
    "flowlabel",
    "localbypass",
    "remcsum_tx",
    "remcsum_rx",
    "reserved_bits",
];

/// Switches of a bridge port that are not modelled, and how they are set
/// where they change nothing.
const PORT_DEFAULTS: [(&str, bool); 9] = [
    ("locked", false),
    ("mab", false),
    ("neigh_suppress", false),
    ("neigh_vlan_suppress", false),
    ("proxy_arp", false),
    ("proxy_arp_wifi", false),
    ("vlan_tunnel", false),
    ("bcast_flood", true),
    ("mcast_flood", true),
];

struct Reader<'a> {
    file: &'a str,
    line: u32,
    name: String,
    unmodelled: Vec<Unmodelled>,
}

impl Reader<'_> {
    fn unmodelled(&mut self, what: String, value: &Value) {
        let origin = Origin { file: self.file.into(), line: self.line };
        self.unmodelled.push(Unmodelled { origin, what, text: format!("{} {value}", self.name) });
    }

    fn bridge(&mut self, data: Option<Fields<'_>>) -> Result<Bridge, Error> {
        let Some(mut data) = data else { return Ok(Bridge::default()) };
        let service = data.string("vlan_protocol")?.is_some_and(|p| p.eq_ignore_ascii_case("802.1ad"));
        let bridge = Bridge {
            vlan_filtering: data.flag("vlan_filtering")?,
            nf_call_iptables: data.flag("nf_call_iptables")?,
            nf_call_ip6tables: data.flag("nf_call_ip6tables")?,
        };
        if bridge.vlan_filtering && service {
            self.unmodelled("bridge VLAN protocol".into(), &Value::from("802.1ad"));
        }
        Ok(bridge)
    }

    fn vxlan(&mut self, data: Option<Fields<'_>>) -> Result<Vxlan, Error> {
        let mut vxlan =
            Vxlan { vni: 0, local: None, remote: None, link: None, port: VXLAN_PORT, ttl: 0, learning: true };
        let Some(mut data) = data else { return Ok(vxlan) };
        let mut address = |keys: &[&str]| -> Result<Option<IpAddr>, Error> {
            let mut found = None;
            for key in keys {
                found = data.parsed(key, "an address")?.or(found);
            }
            Ok(found)
        };
        vxlan.local = address(&["local", "local6"])?;
        vxlan.remote = address(&["remote", "remote6", "group", "group6"])?;
        if let Some(vni) = data.number("id")? {
            vxlan.vni = vni;
        }
        if let Some(port) = data.number("port")? {
            vxlan.port = port;
        }
        vxlan.link = data.string("link")?;
        vxlan.learning = data.switch("learning")?.unwrap_or(true);
        match data.take("ttl") {
            None => {}
            Some(Value::String(word)) if word == "auto" => {}
            Some(Value::String(word)) if word == "inherit" => {
                self.unmodelled("vxlan ttl inherit".into(), &Value::from(word));
            }
            Some(Value::Number(n)) if n.as_u64().is_some_and(|n| n < 256) => {
                vxlan.ttl = n.as_u64().and_then(|n| u8::try_from(n).ok()).unwrap_or_default();
            }
            Some(other) => return Err(data.wrong("ttl", &other, "a number in range")),
        }
        for (key, value) in &data.map {
            let off = *value == Value::Bool(false) || (key == "df" && value == "unset");
            if !off && !VXLAN_HARMLESS.contains(&key.as_str()) {
                self.unmodelled(format!("vxlan {key}"), value);
            }
        }
        Ok(vxlan)
    }

    fn port(&mut self, data: Option<Fields<'_>>) -> Result<BridgePort, Error> {
        let mut port = BridgePort::default();
        let Some(mut data) = data else { return Ok(port) };
        if let Some(state) = data.word("state")? {
            port.forwarding = state == "forwarding" || state == "3";
        }
        port.hairpin = data.flag("hairpin")?;
        port.isolated = data.flag("isolated")?;
        port.flood = data.switch("flood")?.unwrap_or(true);
        port.learning = data.switch("learning")?.unwrap_or(true);
        for (key, usual) in PORT_DEFAULTS {
            if data.switch(key)?.unwrap_or(usual) != usual {
                self.unmodelled(format!("bridge port {key}"), &Value::from(!usual));
            }
        }
        if let Some(backup) = data.take("backup_port") {
            self.unmodelled("bridge port backup_port".into(), &backup);
        }
        Ok(port)
    }

    fn kind(&mut self, link_type: &str, info: &mut Option<Fields<'_>>) -> Result<InterfaceKind, Error> {
        let shown = info.as_ref().map(|i| Value::Object(i.map.clone())).unwrap_or_default();
        let (kind, data) = match info {
            Some(info) => (info.string("info_kind")?, info.object("info_data")?),
            None => (None, None),
        };
        let unknown = |reader: &mut Self, kind: &str| {
            reader.unmodelled(format!("device {kind}"), &shown);
            InterfaceKind::Other(kind.to_owned())
        };
        Ok(match kind.as_deref() {
            None if link_type == "loopback" => InterfaceKind::Loopback,
            None if link_type == "ether" || link_type == "none" => InterfaceKind::Physical,
            Some("veth") => InterfaceKind::Veth,
            Some("tun" | "tap") => InterfaceKind::Tun,
            Some("bridge") => InterfaceKind::Bridge(self.bridge(data)?),
            Some("vxlan") => InterfaceKind::Vxlan(self.vxlan(data)?),
            Some("dummy") => InterfaceKind::Dummy,
            Some("bond") => {
                let (bond, strange) = device::bond(data)?;
                strange.iter().for_each(|value| self.unmodelled("bond setting".into(), value));
                InterfaceKind::Bond(bond)
            }
            Some("wireguard") => InterfaceKind::Wireguard(Wireguard::default()),
            Some(word) => match self.layered(word, data)? {
                Some(kind) => kind,
                None => unknown(self, word),
            },
            None => unknown(self, link_type),
        })
    }

    /// A device on top of others, if it is of a kind that is modelled.
    fn layered(&mut self, kind: &str, data: Option<Fields<'_>>) -> Result<Option<InterfaceKind>, Error> {
        Ok(match kind {
            "vlan" => device::vlan(data)?.map(InterfaceKind::Vlan),
            "macvlan" => device::macvlan(data)?.map(InterfaceKind::Macvlan),
            "vrf" => match data {
                Some(mut data) => data.number("table")?.map(InterfaceKind::Vrf),
                None => None,
            },
            _ => match TunnelKind::ALL.into_iter().find(|k| k.name() == kind) {
                None => None,
                Some(kind) => {
                    let (tunnel, strange) = device::tunnel(kind, data)?;
                    strange.iter().for_each(|(what, value)| self.unmodelled(what.clone(), value));
                    Some(InterfaceKind::Tunnel(tunnel))
                }
            },
        })
    }

    fn interface(&mut self, mut link: Fields<'_>) -> Result<Interface, Error> {
        let Some(index) = link.number("ifindex")? else { return Err(link.missing("ifindex")) };
        let link_type = link.string("link_type")?.unwrap_or_else(|| "ether".to_owned());
        let flags = link.strings("flags")?;
        let mut info = link.object("linkinfo")?;
        let kind = self.kind(&link_type, &mut info)?;
        let (mut port, mut standby) = (None, false);
        if let Some(info) = &mut info {
            let slave = info.string("info_slave_kind")?;
            let data = info.object("info_slave_data")?;
            if slave.as_deref() == Some("bridge") {
                port = Some(self.port(data)?);
            } else if slave.as_deref() == Some("bond") {
                let state = match data {
                    Some(mut data) => data.word("state")?,
                    None => None,
                };
                standby = state.as_deref() == Some("BACKUP");
            }
        }
        // A program attached to the device may drop or redirect any packet.
        if let Some(program) = link.take("xdp") {
            self.unmodelled("device xdp".into(), &program);
        }
        let mac = if link_type == "ether" { link.parsed("address", "a MAC address")? } else { None };
        let has = |flag: &str| flags.iter().any(|f| f == flag);
        Ok(Interface {
            index,
            name: self.name.clone(),
            kind,
            mac,
            mtu: link.number("mtu")?.unwrap_or_default(),
            up: has("UP"),
            carrier: has("LOWER_UP"),
            arp: !has("NOARP"),
            link: match link.take("link") {
                None | Some(Value::Null) => None,
                Some(Value::String(name)) => Some(name),
                Some(other) => return Err(link.wrong("link", &other, "a device")),
            },
            master: link.string("master")?,
            port,
            vlans: Vec::new(),
            standby,
            addresses: Vec::new(),
        })
    }
}

/// Reads the interfaces, in the order listed and without addresses, and what
/// of them is not modelled. Statistics (`-s`) are passed over.
///
/// # Errors
///
/// JSON that is broken, or a field that is missing or of the wrong sort.
pub fn parse(file: &str, text: &str) -> Result<(Vec<Interface>, Vec<Unmodelled>), Error> {
    let (mut interfaces, mut unmodelled) = (Vec::new(), Vec::new());
    for mut link in json::objects(file, text)? {
        let name = link.required("ifname")?;
        let mut reader = Reader { file, line: link.line, name, unmodelled: Vec::new() };
        interfaces.push(reader.interface(link)?);
        unmodelled.append(&mut reader.unmodelled);
    }
    Ok((interfaces, unmodelled))
}

fn vxlan(vxlan: &Vxlan) -> Object {
    let family = |a: IpAddr| if a.is_ipv4() { "" } else { "6" };
    let mut data = Object::default();
    data.set("id", vxlan.vni);
    if let Some(remote) = vxlan.remote {
        let key = if remote.is_multicast() { "group" } else { "remote" };
        data.set(&format!("{key}{}", family(remote)), remote.to_string());
    }
    if let Some(local) = vxlan.local {
        data.set(&format!("local{}", family(local)), local.to_string());
    }
    data.show("link", vxlan.link.as_ref());
    data.set("port", vxlan.port);
    data.set("ttl", vxlan.ttl);
    data.set("learning", vxlan.learning);
    data
}

fn info(interface: &Interface) -> Object {
    let mut info = Object::default();
    match &interface.kind {
        InterfaceKind::Loopback | InterfaceKind::Physical => {}
        kind => info.set("info_kind", kind.to_string()),
    }
    match &interface.kind {
        InterfaceKind::Bridge(bridge) => {
            let mut data = Object::default();
            data.set("vlan_filtering", u8::from(bridge.vlan_filtering));
            data.set("nf_call_iptables", u8::from(bridge.nf_call_iptables));
            data.set("nf_call_ip6tables", u8::from(bridge.nf_call_ip6tables));
            info.set("info_data", data.0);
        }
        InterfaceKind::Vxlan(settings) => info.set("info_data", vxlan(settings).0),
        InterfaceKind::Vlan(tag) => info.set("info_data", device::print_vlan(*tag).0),
        InterfaceKind::Bond(bond) => info.set("info_data", device::print_bond(bond).0),
        InterfaceKind::Macvlan(mode) => info.set("info_data", device::print_macvlan(*mode).0),
        InterfaceKind::Tunnel(tunnel) => info.set("info_data", device::print_tunnel(tunnel).0),
        InterfaceKind::Vrf(table) => {
            let mut data = Object::default();
            data.set("table", *table);
            info.set("info_data", data.0);
        }
        InterfaceKind::Loopback
        | InterfaceKind::Physical
        | InterfaceKind::Veth
        | InterfaceKind::Tun
        | InterfaceKind::Dummy
        | InterfaceKind::Wireguard(_)
        | InterfaceKind::Other(_) => {}
    }
    if let Some(port) = &interface.port {
        let mut data = Object::default();
        data.set("state", if port.forwarding { "forwarding" } else { "disabled" });
        data.set("hairpin", port.hairpin);
        data.set("isolated", port.isolated);
        data.set("flood", port.flood);
        data.set("learning", port.learning);
        info.set("info_slave_kind", "bridge");
        info.set("info_slave_data", data.0);
    } else if interface.standby {
        let mut data = Object::default();
        data.set("state", "BACKUP");
        info.set("info_slave_kind", "bond");
        info.set("info_slave_data", data.0);
    }
    info
}

/// Prints the fields that are read, one interface a line.
pub fn print(interfaces: &[Interface]) -> String {
    json::array(interfaces.iter().map(|interface| {
        let mut object = Object::default();
        object.set("ifindex", interface.index);
        object.set("ifname", interface.name.clone());
        let loopback = interface.kind == InterfaceKind::Loopback;
        let flags = [
            ("LOOPBACK", loopback),
            ("NOARP", !interface.arp),
            ("UP", interface.up),
            ("LOWER_UP", interface.carrier),
        ];
        let set: Vec<&str> = flags.iter().filter(|(_, on)| *on).map(|(flag, _)| *flag).collect();
        object.set("flags", set);
        object.set("mtu", interface.mtu);
        object.show("link", interface.link.as_ref());
        object.show("master", interface.master.as_ref());
        let link_type = match (loopback, interface.mac) {
            (true, _) => "loopback",
            (_, Some(_)) => "ether",
            _ => match &interface.kind {
                InterfaceKind::Tunnel(tunnel) => tunnel.kind.name(),
                _ => "none",
            },
        };
        object.set("link_type", link_type);
        object.show("address", interface.mac);
        let info = info(interface);
        if !info.0.is_empty() {
            object.set("linkinfo", info.0);
        }
        Value::Object(object.0)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"[{"ifindex":1,"ifname":"lo","flags":["LOOPBACK","UP","LOWER_UP"],"mtu":65536,"link_type":"loopback"},
{"ifindex":2,"ifname":"enp1s0","flags":["UP","LOWER_UP"],"mtu":1500,"link_type":"ether","address":"52:54:00:fd:74:63"},
{"ifindex":3,"ifname":"br0","flags":["UP"],"mtu":1500,"link_type":"ether","address":"02:5b:00:00:00:01","linkinfo":{"info_kind":"bridge","info_data":{"vlan_filtering":1,"nf_call_iptables":1,"nf_call_ip6tables":0}}},
{"ifindex":4,"ifname":"vnet1","flags":["UP","LOWER_UP"],"mtu":1500,"master":"br0","link_type":"ether","address":"02:5b:00:00:00:02","linkinfo":{"info_kind":"tun","info_slave_kind":"bridge","info_slave_data":{"state":"forwarding","hairpin":true,"isolated":false,"flood":false,"learning":true}}},
{"ifindex":5,"ifname":"flannel.1","flags":["UP","LOWER_UP"],"mtu":1450,"link_type":"ether","address":"02:5b:00:00:00:03","linkinfo":{"info_kind":"vxlan","info_data":{"id":1,"local":"10.0.0.1","link":"enp1s0","port":8472,"ttl":0,"learning":false}}},
{"ifindex":6,"ifname":"wg0","flags":["NOARP","UP","LOWER_UP"],"mtu":1420,"link_type":"none","linkinfo":{"info_kind":"wireguard"}},
{"ifindex":7,"ifname":"enp1s0.20","flags":["UP"],"mtu":1500,"link":"enp1s0","link_type":"ether","address":"02:5b:00:00:00:04","linkinfo":{"info_kind":"vlan","info_data":{"protocol":"802.1ad","id":20}}},
{"ifindex":8,"ifname":"bond0","flags":["UP"],"mtu":1500,"master":"red","link_type":"ether","address":"02:5b:00:00:00:05","linkinfo":{"info_kind":"bond","info_data":{"mode":"active-backup","active_slave":"enp2s0"}}},
{"ifindex":9,"ifname":"enp3s0","flags":["UP"],"mtu":1500,"master":"bond0","link_type":"ether","address":"02:5b:00:00:00:05","linkinfo":{"info_slave_kind":"bond","info_slave_data":{"state":"BACKUP"}}},
{"ifindex":10,"ifname":"red","flags":["NOARP","UP"],"mtu":65575,"link_type":"ether","address":"02:5b:00:00:00:06","linkinfo":{"info_kind":"vrf","info_data":{"table":10}}},
{"ifindex":11,"ifname":"mv0","flags":["UP"],"mtu":1500,"link":"enp1s0","link_type":"ether","address":"02:5b:00:00:00:07","linkinfo":{"info_kind":"macvlan","info_data":{"mode":"bridge"}}},
{"ifindex":12,"ifname":"gre1","flags":["NOARP","UP"],"mtu":1476,"link_type":"gre","linkinfo":{"info_kind":"gre","info_data":{"remote":"10.0.0.2","local":"10.0.0.1","ttl":64,"pmtudisc":true,"ikey":"0.0.0.42","okey":"0.0.0.42"}}},
{"ifindex":13,"ifname":"six","flags":["NOARP","UP"],"mtu":1452,"link_type":"ip6tnl","linkinfo":{"info_kind":"ip6tnl","info_data":{"proto":"ipip6","link":"enp1s0","remote":"fd00::2","local":"fd00::1","ttl":64}}},
{"ifindex":14,"ifname":"ib0","flags":[],"mtu":2044,"link_type":"none","linkinfo":{"info_kind":"ipoib"}}]
"#;

    #[test]
    fn reads_and_prints() {
        let (links, unmodelled) = parse("link.json", TEXT).unwrap();
        let what: Vec<&str> = unmodelled.iter().map(|u| u.what.as_str()).collect();
        assert_eq!(what, ["device ipoib"]);
        assert_eq!(unmodelled[0].text, "ib0 {\"info_kind\":\"ipoib\"}");
        assert_eq!(links[0].kind, InterfaceKind::Loopback);
        assert_eq!(links[1].kind, InterfaceKind::Physical);
        assert!(links[2].up && !links[2].carrier);
        let port = BridgePort { hairpin: true, flood: false, ..BridgePort::default() };
        assert_eq!(links[3].port, Some(port));
        let InterfaceKind::Vxlan(vxlan) = &links[4].kind else { panic!("{:?}", links[4].kind) };
        assert_eq!((vxlan.vni, vxlan.link.as_deref(), vxlan.remote), (1, Some("enp1s0"), None));
        assert!(!links[5].arp);
        assert_eq!(print(&links), TEXT);
    }

    #[test]
    fn what_a_vxlan_or_port_does_beyond_the_model_is_kept() {
        let text = r#"[{"ifindex":7,"ifname":"vx0","flags":[],"link_type":"ether","linkinfo":{"info_kind":"vxlan",
"info_data":{"external":true,"group6":"ff05::100","ttl":64,"gbp":null,"rsc":false},
"info_slave_kind":"bridge","info_slave_data":{"state":1,"neigh_suppress":true,"mcast_flood":true}}}]"#;
        let (links, unmodelled) = parse("link.json", text).unwrap();
        let what: Vec<&str> = unmodelled.iter().map(|u| u.what.as_str()).collect();
        assert_eq!(what, ["vxlan external", "vxlan gbp", "bridge port neigh_suppress"]);
        assert!(!links[0].port.as_ref().unwrap().forwarding);
    }

    #[test]
    fn what_a_layered_device_does_beyond_the_model_is_kept() {
        let what = |kind: &str, data: &str| -> Vec<String> {
            let text = format!(
                r#"[{{"ifindex":2,"ifname":"d","flags":[],"linkinfo":{{"info_kind":"{kind}","info_data":{data}}}}}]"#
            );
            parse("link.json", &text).unwrap().1.into_iter().map(|u| u.what).collect()
        };
        // Both ends must agree on checksums and sequence numbers.
        assert_eq!(what("gre", r#"{"ttl":64,"icsum":true,"ocsum":true}"#), ["gre icsum", "gre ocsum"]);
        assert_eq!(what("gre", r#"{"ttl":64,"tos":"inherit"}"#), ["gre tos"]);
        assert_eq!(what("gre", r#"{"ttl":64,"pmtudisc":true}"#), [""; 0]);
        assert_eq!(what("bond", r#"{"mode":"broadcast"}"#), ["bond setting"]);
        assert_eq!(what("bond", r#"{"mode":"active-backup","all_slaves_active":1}"#), ["bond setting"]);
        assert_eq!(what("macvlan", r#"{"mode":"source"}"#), ["device macvlan"]);
        let bridge = r#"{"vlan_filtering":1,"vlan_protocol":"802.1ad"}"#;
        assert_eq!(what("bridge", bridge), ["bridge VLAN protocol"]);
    }

    #[test]
    fn damage_is_named() {
        let message = |text: &str| parse("link.json", text).unwrap_err().to_string();
        assert_eq!(
            message(&TEXT.replace("\"mtu\":1450", "\"mtu\":\"big\"")),
            "link.json:5: bad value: `mtu` is not a number in range: `\"mtu\":\"big\"`"
        );
        assert_eq!(
            message(&TEXT.replace("\"flags\":[\"UP\"]", "\"flags\":{}")),
            "link.json:3: bad value: `flags` is not a list of words: `\"flags\":{}`"
        );
        assert_eq!(
            message("[{\"ifindex\":1}]"),
            "link.json:1: bad value: `ifname` is missing: `{\"ifindex\":1}`"
        );
    }
}
