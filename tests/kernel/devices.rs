//! The commands that make a host's devices.

use lab_core::addr::Family;
use lab_core::model::{Host, Interface, InterfaceKind, Tunnel, TunnelKind};

/// ` address MAC`, of a device that has one.
pub fn mac(device: &Interface) -> String {
    device.mac.map_or(String::new(), |mac| format!("address {mac}"))
}

/// The command that makes a device that is none end of a wire.
///
/// # Errors
/// It is of a kind that is not built here.
pub fn made(device: &Interface) -> Result<String, String> {
    let (name, mac) = (&device.name, mac(device));
    let link = device.link.as_ref().map_or(String::new(), |l| format!("link {l} "));
    Ok(match &device.kind {
        InterfaceKind::Loopback | InterfaceKind::Veth => String::new(),
        // Made where the device below is.
        InterfaceKind::Macvlan(_) if device.link.is_none() => String::new(),
        InterfaceKind::Bridge(bridge) => {
            let filters = if bridge.vlan_filtering { " vlan_filtering 1 vlan_default_pvid 0" } else { "" };
            format!("link add {name} {mac} type bridge mcast_snooping 0{filters}\n")
        }
        InterfaceKind::Vxlan(vxlan) => {
            let remote = vxlan.remote.map_or(String::new(), |r| format!("remote {r}"));
            format!(
                "link add {name} {mac} mtu {} type vxlan id {} {remote} dstport {}\n",
                device.mtu, vxlan.vni, vxlan.port
            )
        }
        InterfaceKind::Dummy => format!("link add {name} {mac} type dummy\n"),
        InterfaceKind::Vlan(tag) => {
            let protocol = if tag.service { "802.1ad" } else { "802.1Q" };
            format!("link add {link}name {name} {mac} type vlan protocol {protocol} id {}\n", tag.id)
        }
        InterfaceKind::Bond(bond) => format!("link add {name} {mac} type bond mode {}\n", bond.mode),
        InterfaceKind::Macvlan(mode) => {
            format!("link add {link}name {name} {mac} type macvlan mode {mode}\n")
        }
        InterfaceKind::Vrf(table) => format!("link add {name} type vrf table {table}\n"),
        InterfaceKind::Tunnel(tunnel) => {
            format!("link add {name} {mac} mtu {} {}\n", device.mtu, tunnel_type(tunnel))
        }
        InterfaceKind::Wireguard(_) => format!("link add {name} type wireguard\n"),
        InterfaceKind::Physical | InterfaceKind::Tun | InterfaceKind::Other(_) => {
            return Err(format!("no device {} here", device.kind))
        }
    })
}

fn tunnel_type(tunnel: &Tunnel) -> String {
    let mut text = format!("type {}", tunnel.kind.name());
    let mut say = |word: &str, value: Option<String>| {
        if let Some(value) = value {
            text += &format!(" {word} {value}");
        }
    };
    say("remote", tunnel.remote.map(|a| a.to_string()));
    say("local", tunnel.local.map(|a| a.to_string()));
    say("dev", tunnel.link.clone());
    let v6 = tunnel.kind.outer() == Family::Ipv6;
    if v6 {
        say("hoplimit", Some(tunnel.ttl.to_string()));
        say("encaplimit", (!tunnel.encap_limit).then(|| "none".into()));
    } else {
        say("ttl", Some(if tunnel.ttl == 0 { "inherit".into() } else { tunnel.ttl.to_string() }));
        say(if tunnel.df { "pmtudisc" } else { "nopmtudisc" }, Some(String::new()));
    }
    // Only GRE has room for them.
    let gre = tunnel.kind.is_gre();
    say("ikey", tunnel.key_in.filter(|_| gre).map(|k| k.to_string()));
    say("okey", tunnel.key_out.filter(|_| gre).map(|k| k.to_string()));
    say("ocsum", (gre && tunnel.checksum).then(String::new));
    say("oseq", (gre && tunnel.sequence).then(String::new));
    say("ignore-df", tunnel.ignore_df.then(String::new));
    let mode = match (tunnel.kind, tunnel.inside) {
        (TunnelKind::Sit | TunnelKind::Ip6tnl, None) => Some("any"),
        (TunnelKind::Ip6tnl, Some(Family::Ipv4)) => Some("ipip6"),
        (TunnelKind::Ip6tnl, Some(Family::Ipv6)) => Some("ip6ip6"),
        _ => None,
    };
    say("mode", mode.map(str::to_owned));
    text
}

/// The commands that bring a device up: into what it is a port of first.
pub fn raised(host: &Host, device: &Interface) -> String {
    let name = &device.name;
    let mut text = String::new();
    if let Some(master) = &device.master {
        text += &format!("link set {name} master {master}\n");
    }
    if let Some(port) = device.port.as_ref().filter(|p| p.hairpin || p.isolated) {
        let switch = |on: bool| if on { "on" } else { "off" };
        let (hairpin, isolated) = (switch(port.hairpin), switch(port.isolated));
        text += &format!("link set {name} type bridge_slave hairpin {hairpin} isolated {isolated}\n");
    }
    text += &format!("link set {name} up\n");
    for address in device.addresses.iter().filter(|a| !a.address.is_loopback()) {
        let more = if address.address.is_ipv6() { " nodad" } else { " brd +" };
        text += &format!("addr add {}/{} dev {name}{more}\n", address.address, address.prefix_len);
    }
    let active = |bond: &&Interface| match &bond.kind {
        InterfaceKind::Bond(settings) => settings.active.as_ref() == Some(name),
        _ => false,
    };
    let bond = device.master.as_deref().and_then(|m| host.interface(m));
    if let Some(bond) = bond.filter(active) {
        text += &format!("link set {} type bond active_slave {name}\n", bond.name);
    }
    text
}

/// What `bridge` is told of VLANs.
pub fn vlans(host: &Host) -> String {
    let mut text = String::new();
    for device in &host.interfaces {
        let own = if matches!(device.kind, InterfaceKind::Bridge(_)) { " self" } else { "" };
        for vlan in &device.vlans {
            let pvid = if vlan.pvid { " pvid" } else { "" };
            let untagged = if vlan.untagged { " untagged" } else { "" };
            text += &format!("vlan add dev {} vid {}{own}{pvid}{untagged}\n", device.name, vlan.id);
        }
    }
    text
}
